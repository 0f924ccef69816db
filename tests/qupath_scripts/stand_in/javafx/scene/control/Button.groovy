package javafx.scene.control

class Button {
    static Map all = [:]
    boolean focusTraversable
    def onAction
    Button(String text) { all[text] = this }
}
