package javafx.scene.control

class Alert {
    enum AlertType { INFORMATION }
    static Alert last
    String text, title, headerText
    Alert(AlertType type, String text) { this.text = text; last = this }
    void initOwner(Object owner) {}
    void show() {}
}
