package javafx.scene

class Scene {
    static Scene last
    def onKeyPressed
    List filters = []
    Scene(Object root, double width, double height) { last = this }
    void addEventFilter(Object kind, Object filter) { filters.add(filter) }
    void removeEventFilter(Object kind, Object filter) { filters.remove(filter) }
}
