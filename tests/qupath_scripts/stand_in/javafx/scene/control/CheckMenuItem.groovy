package javafx.scene.control

class CheckMenuItem extends MenuItem {
    boolean selected
    CheckMenuItem(String text) { super(text) }
}
