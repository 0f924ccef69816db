package javafx.stage

/** The windows of QuPath, the main one first. */
class Window {
    static List windows = [new Window(focused: true)]
    boolean focused
    boolean isFocused() { return focused }
}
