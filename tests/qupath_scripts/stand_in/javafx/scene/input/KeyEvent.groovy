package javafx.scene.input

class KeyEvent {
    static final String KEY_PRESSED = "pressed"
    KeyCode code
    boolean alt, shortcut, consumed
    KeyCode getCode() { return code }
    boolean isAltDown() { return alt }
    boolean isShortcutDown() { return shortcut }
    void consume() { consumed = true }
}
