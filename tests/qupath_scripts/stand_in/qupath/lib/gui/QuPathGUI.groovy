package qupath.lib.gui

/** What the scripts ask of QuPath's window; none is there (null) as in a headless QuPath. */
class QuPathGUI {
    static QuPathGUI instance

    def project
    def imageData
    def imageDataProperty

    def imageDataProperty() { return imageDataProperty }
    def scene = new javafx.scene.Scene(null, 1, 1)
    def stage
    def viewer = new Viewer()
    def items = []
    def menu = new Expando(getItems: { items }, setOnShowing: { })
    def runner
    def opened

    def getStage() {
        if (stage == null) stage = new Expando(getScene: { scene })
        return stage
    }
    def getMenu(String name, boolean create) { return menu }
    def getViewer() { return viewer }
    void runScript(File file, String script) { runner.call(file) }
    void refreshProject() {}
    boolean openImageEntry(Object entry) { opened = entry.getID(); return true }
    List getAllViewers() { return [new Expando(getImageData: { imageData })] }
}

class Viewer {
    def centre
    def getView() { return new Expando(getWidth: { 800d }, getHeight: { 600d }) }
    void setDownsampleFactor(double ignored) {}
    void setCenterPixelLocation(double x, double y) { centre = [x, y] }
}
