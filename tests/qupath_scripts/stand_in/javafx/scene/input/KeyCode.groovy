package javafx.scene.input

enum KeyCode {
    N("N"), P("P"), A("A"), F("F"), R("R"), I("I"), O("O"), S("S"), RIGHT("Right"), LEFT("Left"), DIGIT1("1"), NUMPAD2("Numpad 2"), Z("Z")

    final String name
    KeyCode(String name) { this.name = name }
    String getName() { return name }
}
