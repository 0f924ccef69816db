package javafx.scene.control

class CheckBox {
    boolean selected, focusTraversable
    CheckBox(String text) {}
}
