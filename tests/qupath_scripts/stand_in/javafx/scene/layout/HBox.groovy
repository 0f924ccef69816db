package javafx.scene.layout

class HBox {
    def padding
    HBox(double spacing, Object... children) {}
}
