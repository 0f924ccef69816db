// Runs the scripts of qupath_scripts against classes that stand in for QuPath's, and plays a pathologist.
//   run.groovy log|batch SCRIPTS PROJECT
import groovy.json.JsonSlurper
import qupath.lib.gui.QuPathGUI

class Property {
    def listeners = []
    def value
    void addListener(Object listener) { listeners.add(listener) }
    void removeListener(Object listener) { listeners.remove(listener) }
    void set(Object after) {
        def before = value
        value = after
        new ArrayList(listeners).each { it.changed(this, before, after) }
    }
}

class Point { double x, y }

class Roi {
    List ring
    String getRoiName() { return 'Polygon' }
    List getAllPoints() { return ring.collect { new Point(x: it[0], y: it[1]) } }
}

class Annotation {
    UUID id = UUID.randomUUID()
    Roi roi
    String pathClass
    UUID getID() { return id }
    Roi getROI() { return roi }
    String getPathClass() { return pathClass }
}

class Hierarchy {
    List objects = []
    List listeners = []
    int root = 1
    void addListener(Object listener) { listeners.add(listener) }
    void removeListener(Object listener) { listeners.remove(listener) }
    Collection getAnnotationObjects() { return new ArrayList(objects) }
    List getFlattenedObjectList(Object ignored) { return [new Annotation()] + objects }
    void addObjects(Collection more) { objects.addAll(more) }
    void fire(boolean changing) { new ArrayList(listeners).each { it.hierarchyChanged(new Expando(isChanging: { changing })) } }
}

class Data {
    Hierarchy hierarchy = new Hierarchy()
    boolean changed = false
    boolean isChanged() { return changed }
    Object getServer() { return null }
}

class Entry {
    String id
    String name
    File folder
    Map metadata = [:]
    Data data = new Data()
    int saves = 0
    String getID() { return id }
    String getImageName() { return name }
    Map getMetadata() { return metadata }
    Object getEntryPath() { return folder.toPath() }
    Data readImageData() { return data }
    Hierarchy readHierarchy() { return data.hierarchy }
    void saveImageData(Object ignored) { saves++ }
}

class Project {
    File file
    List entries = []
    Object getPath() { return file.toPath() }
    Object getEntry(Object data) { return entries.find { it.data.is(data) } }
    List getImageList() { return entries }
}

def square = { double x, double y, double side -> new Roi(ring: [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]) }
def scripts = new File(args[1])
def folder = new File(args[2])
def project = new Project(file: new File(folder, 'project.qpproj'))
['1', '2'].each {
    def entry = new Entry(id: it, name: 'slide ' + it, folder: new File(folder, 'data/' + it))
    entry.metadata.wsi_slide_id = 'slide-' + it
    entry.data.hierarchy.objects.add(new Annotation(roi: square(10, 20, 30), pathClass: 'Tumor'))
    project.entries.add(entry)
}
def evaluate = { String name, Closure change ->
    def binding = new Binding()
    binding.setVariable('getProject', { project })
    new GroovyShell(this.class.classLoader, binding).evaluate(change(new File(scripts, name).text), name)
}
def plain = { it }

if (args[0] == 'log') {
    def image = new Property()
    def focus = new Property()
    QuPathGUI.instance = new QuPathGUI(project: project, imageDataProperty: image, focusedProperty: focus)
    // The same script with a quick clock.
    def quick = { it.replace('HEARTBEAT_MS = 30000', 'HEARTBEAT_MS = 400').replace('SAVE_POLL_MS = 5000', 'SAVE_POLL_MS = 50') }
    def show = { data -> QuPathGUI.instance.imageData = data; image.set(data) }
    def rest = { Thread.sleep(700) }
    evaluate('wsi_event_log.groovy', quick)
    def data = project.entries[0].data
    def hierarchy = data.hierarchy
    def first = hierarchy.objects[0]
    show(data)
    rest()
    // A stroke: out of the hierarchy in silence, then there again with the same id and another region.
    hierarchy.objects.remove(first)
    hierarchy.fire(true)
    rest()
    first.roi = square(10, 20, 60)
    hierarchy.objects.add(first)
    data.changed = true
    hierarchy.fire(false)
    rest()
    first.pathClass = 'Stroma'
    hierarchy.fire(false)
    rest()
    def drawn = new Annotation(roi: square(500, 500, 5))
    hierarchy.objects.add(drawn)
    hierarchy.fire(false)
    rest()
    data.changed = false
    rest()
    focus.set(false)
    rest()
    focus.set(true)
    rest()
    hierarchy.objects.remove(drawn)
    data.changed = true
    hierarchy.fire(false)
    rest()
    show(project.entries[1].data)
    rest()
    evaluate('wsi_event_log.groovy', quick)
    println 'listeners left: ' + (image.listeners.size() + focus.listeners.size() + hierarchy.listeners.size() + project.entries[1].data.hierarchy.listeners.size())
    println 'objects: ' + first.id + ' ' + drawn.id
} else {
    // Headless QuPath runs a script once for each image.
    2.times { evaluate('wsi_export.groovy', plain) }
    2.times { evaluate('wsi_import.groovy', plain) }
    println 'saves: ' + project.entries.collect { it.saves }
}
