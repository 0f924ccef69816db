package javafx.stage

class Stage {
    def scene
    def onHidden
    String title
    void initOwner(Object owner) {}
    void show() {}
    void close() { if (onHidden != null) onHidden.handle(null) }
}
