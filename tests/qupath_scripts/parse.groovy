// Parses each script given on the command line, classes unresolved, and prints one line for each.
import org.codehaus.groovy.control.CompilationUnit
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.control.Phases

args.each { name ->
    def unit = new CompilationUnit(new CompilerConfiguration())
    unit.addSource(new File(name))
    try {
        unit.compile(Phases.CONVERSION)
        println 'ok ' + name
    } catch (Exception error) {
        println 'bad ' + name + ' ' + String.valueOf(error.message).replace('\n', ' ')
    }
}
