package javafx.scene.control

class ProgressBar {
    double maxWidth, progress
    ProgressBar(double progress) {}
}
