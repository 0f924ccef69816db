package javafx.scene.control

class Label {
    static List all = []
    String text = ""
    boolean wrapText
    Label() { all.add(this) }
}
