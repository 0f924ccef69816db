package qupath.lib.gui

/** What the scripts ask of QuPath's window; none is there (null) as in a headless QuPath. */
class QuPathGUI {
    static QuPathGUI instance

    def project
    def imageData
    def imageDataProperty
    def focusedProperty

    def imageDataProperty() { return imageDataProperty }
    def getStage() { return [isFocused: { true }, focusedProperty: { focusedProperty }] as Expando }
    List getAllViewers() { return [new Expando(getImageData: { imageData })] }
}
