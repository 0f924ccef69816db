package javafx.geometry

class Insets {
    Insets(double all) {}
}
