/*
 * wsi_pipeline: the review queue. A small window beside QuPath that walks through the flagged tiles of the open image,
 * the least certain first, says why each was flagged, and marks the image as reviewed.
 *
 * Run it once and leave the window open: Automate > Project scripts > wsi_review. Closing it switches it off.
 * Keys in the window, and with Alt in QuPath's own window:
 *   N or Right = next tile          P or Left = previous tile
 *   A = accept this tile            F = flag this tile for discussion
 *   1 to 9 = class of the selected annotations, as listed in the window
 *   R = save and mark the image as reviewed      I = in progress again      O = next image that is not reviewed
 *   Ctrl+S = save
 * With "Go on by itself" A, F and a class lead to the next tile that nobody has judged.
 *
 * What it writes: the measurement "Review: verdict" of a tile (1 accepted, 2 flagged), the class of annotations that you
 * selected (a locked one is left as it is), and the metadata wsi_state and wsi_progress of the image. It removes nothing
 * and changes no shape. It does nothing in a project that has no file wsi_pipeline.json beside project.qpproj.
 */

import javafx.application.Platform
import javafx.beans.value.ChangeListener
import javafx.event.EventHandler
import javafx.geometry.Insets
import javafx.scene.Scene
import javafx.scene.control.Button
import javafx.scene.control.CheckBox
import javafx.scene.control.Label
import javafx.scene.control.ProgressBar
import javafx.scene.input.KeyCode
import javafx.scene.input.KeyEvent
import javafx.scene.layout.HBox
import javafx.scene.layout.VBox
import javafx.stage.Stage
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.PathIO

import java.nio.file.Files

class WsiReview {

    static final String KEY = 'wsi_pipeline.review'
    static final String VERDICT = 'Review: verdict'
    static final double ACCEPTED = 1
    static final double FLAGGED = 2

    final QuPathGUI gui
    final Label title = new Label()
    final Label reason = new Label()
    final Label keys = new Label()
    final Label state = new Label()
    final Label message = new Label()
    final ProgressBar bar = new ProgressBar(0)
    final CheckBox onward = new CheckBox('Go on by itself')
    Stage stage
    ChangeListener onImage
    EventHandler onKey
    List tiles = []
    List classes = []
    Object shown
    int at = -1

    WsiReview(QuPathGUI gui) { this.gui = gui }

    void open() {
        [reason, keys, message].each { it.setWrapText(true) }
        bar.setMaxWidth(Double.MAX_VALUE)
        onward.setSelected(true)
        onward.setFocusTraversable(false)
        def walk = new HBox(6.0d, button('Previous (P)', { step(-1) }), button('Next (N)', { step(1) }),
            button('Accept (A)', { judge(ACCEPTED) }), button('Flag (F)', { judge(FLAGGED) }), onward)
        def image = new HBox(6.0d, button('Save and mark reviewed (R)', { mark('reviewed') }),
            button('In progress (I)', { mark('in_progress') }), button('Next image (O)', { nextImage() }))
        def box = new VBox(8.0d, title, reason, bar, walk, keys, state, image, message)
        box.setPadding(new Insets(10))
        def scene = new Scene(box, 560, 300)
        scene.setOnKeyPressed({ event -> pressed(event, event.isAltDown()) } as EventHandler)
        // In QuPath's own window letters belong to its tools, so there it is Alt and the letter.
        onKey = { event -> if (event.isAltDown() && !event.isShortcutDown()) pressed(event, false) } as EventHandler
        gui.getStage().getScene().addEventFilter(KeyEvent.KEY_PRESSED, onKey)
        onImage = { observable, before, after -> load(); step(1) } as ChangeListener
        gui.imageDataProperty().addListener(onImage)

        stage = new Stage()
        stage.setTitle('Review queue')
        stage.initOwner(gui.getStage())
        stage.setScene(scene)
        stage.setOnHidden({ event -> release() } as EventHandler)
        stage.show()
        load()
        step(1)
    }

    /** The window was closed: let go of everything. */
    void release() {
        gui.getStage().getScene().removeEventFilter(KeyEvent.KEY_PRESSED, onKey)
        gui.imageDataProperty().removeListener(onImage)
        shown = null
        tiles = []
    }

    Button button(String text, Closure action) {
        def result = new Button(text)
        result.setFocusTraversable(false)
        result.setOnAction({ event -> action.call() } as EventHandler)
        return result
    }

    void pressed(Object event, boolean other) {
        def code = event.getCode()
        if (other) return
        if (event.isShortcutDown()) {
            if (code != KeyCode.S) return
            save()
        }
        else if (code == KeyCode.N || code == KeyCode.RIGHT) step(1)
        else if (code == KeyCode.P || code == KeyCode.LEFT) step(-1)
        else if (code == KeyCode.A) judge(ACCEPTED)
        else if (code == KeyCode.F) judge(FLAGGED)
        else if (code == KeyCode.R) mark('reviewed')
        else if (code == KeyCode.I) mark('in_progress')
        else if (code == KeyCode.O) nextImage()
        else if (digit(code) > 0) classify(digit(code))
        else return
        event.consume()
    }

    int digit(Object code) {
        def name = code.getName().replace('Numpad ', '')
        return name ==~ /[1-9]/ ? Integer.parseInt(name) : 0
    }

    // ---- the queue

    /** Whether the project that is open was handed out by wsi_pipeline. */
    boolean ours() {
        def project = gui.getProject()
        if (project == null) return false
        def path = project.getPath()
        return Files.exists((Files.isDirectory(path) ? path : path.getParent()).resolve('wsi_pipeline.json'))
    }

    void load() {
        shown = ours() ? gui.getImageData() : null
        at = -1
        tiles = []
        classes = []
        message.setText('')
        if (shown != null) {
            tiles = shown.getHierarchy().getDetectionObjects().findAll {
                it.isTile() && it.getPathClass() != null && it.getPathClass().toString() == 'Review'
            }
            tiles = tiles.sort { rank(it) }
            // The model's classes; what only serves the review is left out.
            classes = gui.getProject().getPathClasses().findAll { it != null && it.toString() != 'Review' }
            at = Math.max(-1, tiles.findIndexOf { verdict(it) == 0 } - 1)
        }
        show()
    }

    double rank(Object tile) {
        def value = tile.getMeasurementList().get('Review: rank')
        return Double.isNaN(value) ? 1e9d : value
    }

    double verdict(Object tile) {
        def value = tile.getMeasurementList().get(VERDICT)
        return Double.isNaN(value) ? 0 : value
    }

    void step(int by) {
        if (shown == null || tiles.isEmpty()) { show(); return }
        at = Math.max(0, Math.min(tiles.size() - 1, at + by))
        look()
    }

    void look() {
        def roi = tiles[at].getROI()
        def viewer = gui.getViewer()
        double across = 1.6d * Math.max(roi.getBoundsWidth(), roi.getBoundsHeight())
        def view = viewer.getView()
        double pixels = Math.max(100, Math.min(view.getWidth(), view.getHeight()))
        viewer.setDownsampleFactor(Math.max(0.25d, across / pixels))
        viewer.setCenterPixelLocation(roi.getCentroidX(), roi.getCentroidY())
        show()
    }

    /** To the next tile that nobody has judged, those before this one included; stay where there is none. */
    void advance() {
        if (!onward.isSelected() || tiles.isEmpty()) { show(); return }
        int count = tiles.size()
        for (int i = 1; i <= count; i++) {
            int candidate = (Math.max(0, at) + i) % count
            if (verdict(tiles[candidate]) == 0) {
                at = candidate
                look()
                return
            }
        }
        show()
        message.setText('Every tile of this image is judged. R saves and marks the image as reviewed.')
    }

    void judge(double value) {
        if (shown == null || at < 0 || at >= tiles.size()) return
        tiles[at].getMeasurementList().put(VERDICT, value)
        // No event is fired: each one would take one of the ten steps of undo.
        shown.setChanged(true)
        if (value == FLAGGED) message.setText('Flagged. The lead finds it by the measurement "' + VERDICT + '".')
        else message.setText('')
        note('in_progress')
        advance()
    }

    void classify(int number) {
        if (shown == null || number > classes.size()) return
        def hierarchy = shown.getHierarchy()
        def selected = hierarchy.getSelectionModel().getSelectedObjects().findAll { it != null && it.isAnnotation() }
        def open = selected.findAll { !it.isLocked() }
        if (open.isEmpty()) {
            message.setText(selected.isEmpty() ? 'Select an annotation first.' : 'The selected annotation is locked (Ctrl+K unlocks it).')
            return
        }
        open.each { it.setPathClass(classes[number - 1]) }
        hierarchy.fireObjectClassificationsChangedEvent(this, open)
        message.setText(open.size() + (open.size() == 1 ? ' annotation is now ' : ' annotations are now ') + classes[number - 1])
        def said = message.getText()
        advance()
        if (message.getText() != said) message.setText(said + '. ' + message.getText())
    }

    // ---- the image

    Object currentEntry() {
        def project = gui.getProject()
        return project == null || shown == null ? null : project.getEntry(shown)
    }

    String metadata(Object entry, String key) {
        return entry.metaClass.respondsTo(entry, 'getMetadata') ? entry.getMetadata().get(key) : entry.getMetadataValue(key)
    }

    void setMetadata(Object entry, String key, String value) {
        if (entry.metaClass.respondsTo(entry, 'getMetadata')) entry.getMetadata().put(key, value)
        else entry.putMetadataValue(key, value)
    }

    String progress() {
        int done = tiles.count { verdict(it) != 0 }
        int flagged = tiles.count { verdict(it) == FLAGGED }
        return done + ' of ' + tiles.size() + ' judged' + (flagged == 0 ? '' : ', ' + flagged + ' flagged')
    }

    /** Save as Ctrl+S does; false where nothing was saved. */
    boolean save() {
        def entry = currentEntry()
        if (entry == null) return false
        try {
            def stored = entry.getEntryPath().resolve('data.qpdata')
            // A damaged file opens as an empty image, and saving that would destroy what it held. This throws for one.
            if (Files.exists(stored) && shown.getHierarchy().nObjects() == 0)
                PathIO.readImageData(stored.toFile(), null, shown.getServer(), java.awt.image.BufferedImage)
            if (shown.isChanged()) entry.saveImageData(shown)
            message.setText('Saved.')
            return true
        } catch (Exception error) {
            message.setText('NOT saved, do not close the image: ' + error)
            return false
        }
    }

    /** The state of a new image becomes "in progress"; one that is further stays as it is. */
    void note(String value) {
        def entry = currentEntry()
        if (entry == null) return
        def now = metadata(entry, 'wsi_state')
        if (now == null || now == 'todo') setMetadata(entry, 'wsi_state', value)
    }

    void mark(String value) {
        def entry = currentEntry()
        if (entry == null) return
        // "Reviewed" speaks of what is in the file, so it is saved first.
        if (value == 'reviewed' && !save()) return
        setMetadata(entry, 'wsi_state', value)
        if (!tiles.isEmpty()) setMetadata(entry, 'wsi_progress', progress())
        try {
            gui.getProject().syncChanges()
            gui.refreshProject()
            message.setText(value == 'reviewed' ? 'Saved and marked as reviewed. O opens the next image.' : '')
        } catch (Exception error) {
            message.setText('The project file could not be saved: ' + error)
        }
        show()
    }

    void nextImage() {
        def project = gui.getProject()
        if (project == null || !ours()) return
        def left = project.getImageList().findAll {
            def now = metadata(it, 'wsi_state')
            now == null || now == 'todo' || now == 'in_progress'
        }
        def here = currentEntry()
        left = left.findAll { here == null || it.getID() != here.getID() }
        if (left.isEmpty()) { message.setText('Every other image is reviewed.'); return }
        left = left.sort { String.valueOf(metadata(it, 'wsi_priority') ?: '999999') }
        // QuPath itself asks whether to save the image that is left; the listener loads what is opened.
        gui.openImageEntry(left[0])
    }

    void show() {
        def entry = currentEntry()
        boolean any = at >= 0 && at < tiles.size()
        title.setText(!ours() ? 'This is no project of wsi_pipeline: nothing to review here' :
            entry == null ? 'Open an image of the project' :
            tiles.isEmpty() ? 'No flagged tile in this image' : 'Tile ' + (at + 1) + ' of ' + tiles.size() + ', ' + progress())
        def judged = any ? verdict(tiles[at]) : 0
        reason.setText(!any ? '' : String.valueOf(tiles[at].getName() ?: '') +
            (judged == ACCEPTED ? '  [accepted]' : judged == FLAGGED ? '  [flagged]' : ''))
        bar.setProgress(tiles.isEmpty() ? 0 : tiles.count { verdict(it) != 0 } / (double) tiles.size())
        def names = []
        classes.eachWithIndex { item, i -> if (i < 9) names.add((i + 1) + ' ' + item) }
        keys.setText(names.isEmpty() ? '' : 'Class of the selected annotation: ' + names.join('   '))
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
