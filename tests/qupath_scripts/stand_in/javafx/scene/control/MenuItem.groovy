package javafx.scene.control

class MenuItem {
    String text
    def onAction
    MenuItem(String text) { this.text = text }
}
