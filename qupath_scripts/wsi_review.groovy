/*
 * wsi_pipeline: the review queue. A small window beside QuPath that walks through the flagged tiles of the open image,
 * the least certain first, says why each was flagged, and marks the image as reviewed.
 *
 * Run it once per image or leave the window open: Automate > Project scripts > wsi_review.
 * Keys in the window:  N or Right = next,  P or Left = previous,  R = mark the image as reviewed,
 *                      I = mark it as in progress again,  O = go to the next image that is not reviewed.
 * It moves the view and writes the image's state; it never changes an annotation. Ctrl+S saves, as always.
 */

import javafx.application.Platform
import javafx.geometry.Insets
import javafx.scene.Scene
import javafx.scene.control.Button
import javafx.scene.control.Label
import javafx.scene.control.ProgressBar
import javafx.scene.input.KeyCode
import javafx.scene.layout.HBox
import javafx.scene.layout.VBox
import javafx.stage.Stage
import qupath.lib.gui.QuPathGUI

class WsiReview {

    static final String KEY = 'wsi_pipeline.review'

    final QuPathGUI gui
    final Label title = new Label()
    final Label reason = new Label()
    final Label state = new Label()
    final ProgressBar bar = new ProgressBar(0)
    Stage stage
    List tiles = []
    Object shown
    int at = -1

    WsiReview(QuPathGUI gui) { this.gui = gui }

    void open() {
        def buttons = new HBox(6.0d,
            button('Previous (P)', { step(-1) }), button('Next (N)', { step(1) }),
            button('Reviewed (R)', { mark('reviewed') }), button('In progress (I)', { mark('in_progress') }),
            button('Next image (O)', { nextImage() }))
        reason.setWrapText(true)
        bar.setMaxWidth(Double.MAX_VALUE)
        def box = new VBox(8.0d, title, reason, bar, state, buttons)
        box.setPadding(new Insets(10))
        def scene = new Scene(box)
        scene.setOnKeyPressed { event ->
            def code = event.getCode()
            if (code == KeyCode.N || code == KeyCode.RIGHT) step(1)
            else if (code == KeyCode.P || code == KeyCode.LEFT) step(-1)
            else if (code == KeyCode.R) mark('reviewed')
            else if (code == KeyCode.I) mark('in_progress')
            else if (code == KeyCode.O) nextImage()
            else return
            event.consume()
        }
        stage = new Stage()
        stage.setTitle('Review queue')
        stage.initOwner(gui.getStage())
        stage.setScene(scene)
        stage.show()
        load()
        step(1)
    }

    Button button(String text, Closure action) {
        def result = new Button(text)
        result.setFocusTraversable(false)
        result.setOnAction { event -> action.call() }
        return result
    }

    void load() {
        shown = gui.getImageData()
        at = -1
        tiles = []
        if (shown != null) {
            tiles = shown.getHierarchy().getDetectionObjects().findAll {
                it.isTile() && it.getPathClass() != null && it.getPathClass().toString() == 'Review'
            }
            tiles = tiles.sort { rank(it) }
        }
        show()
    }

    double rank(Object tile) {
        def value = tile.getMeasurementList().get('Review: rank')
        return Double.isNaN(value) ? 1e9 : value
    }

    void step(int by) {
        if (gui.getImageData() == null || !gui.getImageData().is(shown)) load()
        if (tiles.isEmpty()) { show(); return }
        at = Math.max(0, Math.min(tiles.size() - 1, at + by))
        def roi = tiles[at].getROI()
        def viewer = gui.getViewer()
        double across = 1.6 * Math.max(roi.getBoundsWidth(), roi.getBoundsHeight())
        def view = viewer.getView()
        double pixels = Math.max(100, Math.min(view.getWidth(), view.getHeight()))
        viewer.setDownsampleFactor(Math.max(0.25, across / pixels))
        viewer.setCenterPixelLocation(roi.getCentroidX(), roi.getCentroidY())
        show()
    }

    Object currentEntry() {
        def project = gui.getProject()
        return project == null || gui.getImageData() == null ? null : project.getEntry(gui.getImageData())
    }

    String metadata(Object entry, String key) {
        return entry.metaClass.respondsTo(entry, 'getMetadata') ? entry.getMetadata().get(key) : entry.getMetadataValue(key)
    }

    void mark(String value) {
        def entry = currentEntry()
        if (entry == null) return
        if (entry.metaClass.respondsTo(entry, 'getMetadata')) entry.getMetadata().put('wsi_state', value)
        else entry.putMetadataValue('wsi_state', value)
        gui.getProject().syncChanges()
        gui.refreshProject()
        show()
    }

    void nextImage() {
        def project = gui.getProject()
        if (project == null) return
        def left = project.getImageList().findAll {
            def state = metadata(it, 'wsi_state')
            state == null || state == 'todo' || state == 'in_progress'
        }
        def here = currentEntry()
        left = left.findAll { here == null || it.getID() != here.getID() }
        if (left.isEmpty()) { reason.setText('Every other image is reviewed.'); return }
        left = left.sort { String.valueOf(metadata(it, 'wsi_priority') ?: '999999') }
        // QuPath itself asks whether to save the image that is left.
        if (gui.openImageEntry(left[0])) { load(); step(1) }
    }

    void show() {
        def entry = currentEntry()
        title.setText(entry == null ? 'No image of a project is open' : (tiles.isEmpty() ? 'No flagged tile in this image' : 'Tile ' + (at + 1) + ' of ' + tiles.size()))
        reason.setText(at >= 0 && at < tiles.size() ? String.valueOf(tiles[at].getName() ?: '') : '')
        bar.setProgress(tiles.isEmpty() ? 0 : (at + 1) / (double) tiles.size())
        state.setText(entry == null ? '' : 'Image: ' + (metadata(entry, 'wsi_state') ?: 'todo'))
    }
}

def gui = QuPathGUI.getInstance()
if (gui == null) {
    println 'wsi_pipeline review queue: there is no QuPath window'
    return
}
Platform.runLater({
    def before = System.getProperties().get(WsiReview.KEY)
    if (before != null && before.stage != null) before.stage.close()
    def review = new WsiReview(gui)
    System.getProperties().put(WsiReview.KEY, review)
    review.open()
} as Runnable)
