package javafx.scene.layout

class VBox {
    def padding
    VBox(double spacing, Object... children) {}
}
