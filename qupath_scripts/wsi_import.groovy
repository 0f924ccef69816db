/*
 * wsi_pipeline: add regions from GeoJSON to the images of the project. Adds only: an object whose id is there already
 * is left as it is, and nothing is ever removed.
 *
 * In QuPath: Automate > Project scripts, then Run (once; not "Run for project"). An image that is open is added to where
 *            it is open, and Ctrl+S saves it; every other image is saved by the script.
 * Headless:  QuPath script wsi_import.groovy -p project.qpproj      (without --save: the script saves what it changes)
 *
 * Files are looked for in import/<slide id>.geojson beside project.qpproj. One JSON line per image is printed, and one
 * at the end. QuPath 0.4 does not take the metadata of objects from GeoJSON (run, model and confidence are in it) and
 * refuses a file in which a measurement is no number; 0.5 takes the metadata of annotations only.
 */

import groovy.json.JsonOutput
import javafx.application.Platform
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.PathIO

import java.nio.file.Files
import java.security.MessageDigest
import java.util.concurrent.Callable
import java.util.concurrent.FutureTask

def project = getProject()
if (project == null) {
    println JsonOutput.toJson([ok: false, error: 'no project is open'])
    return
}
def path = project.getPath()
def gui = QuPathGUI.getInstance()
// Headless, QuPath runs a script once for each image; the first time does the whole project.
def once = 'wsi_pipeline.import ' + path
if (gui == null) {
    if (System.getProperty(once) != null) return
    System.setProperty(once, 'done')
}
def folder = (Files.isDirectory(path) ? path : path.getParent()).resolve('import')

def metadataOf = { entry, key ->
    entry.metaClass.respondsTo(entry, 'getMetadata') ? entry.getMetadata().get(key) : entry.getMetadataValue(key)
}
/** The image data of an entry that a viewer shows, or null: saving a second copy of it would fight with the viewer. */
def openData = { entry ->
    if (gui == null) return null
    def viewers = gui.metaClass.respondsTo(gui, 'getAllViewers') ? gui.getAllViewers() : gui.getViewers()
    def shown = viewers.collect { it.getImageData() }.findAll { it != null }
    return shown.find { project.getEntry(it) != null && project.getEntry(it).getID() == entry.getID() }
}
/** Objects of an image that is shown are changed on QuPath's own thread only. */
def onOwnThread = { Closure action ->
    if (gui == null || Platform.isFxApplicationThread()) return action.call()
    def task = new FutureTask(action as Callable)
    Platform.runLater(task)
    return task.get()
}

/** QuPath waits for ever for the end of a file that was cut off; every whole one ends with the word EOF. */
def checkWhole = { entry ->
    def stored = entry.getEntryPath().resolve('data.qpdata')
    if (!Files.exists(stored)) return
    def file = new RandomAccessFile(stored.toFile(), 'r')
    try {
        byte[] tail = new byte[3]
        file.seek(Math.max(0L, file.length() - 3))
        file.read(tail)
        if (new String(tail, 'US-ASCII') != 'EOF')
            throw new IllegalStateException(stored.toString() + ' is damaged: it ends too early; restore it before anything is saved')
    } finally {
        file.close()
    }
}

int failed = 0
int images = 0
new ArrayList(project.getImageList()).each { entry ->
    def slide = metadataOf(entry, 'wsi_slide_id')
    def file = slide == null ? null : folder.resolve(slide + '.geojson')
    if (file == null || !Files.exists(file)) return
    images++
    def line = [ok: true, entry: entry.getID(), image: entry.getImageName(), slide: slide]
    try {
        line.sha256 = MessageDigest.getInstance('SHA-256').digest(Files.readAllBytes(file)).encodeHex().toString()
        checkWhole(entry)
        def given = PathIO.readObjects(file)
        def shown = openData(entry)
        def data = shown == null ? entry.readImageData() : shown
        def hierarchy = data.getHierarchy()
        def there = hierarchy.getFlattenedObjectList(null)
        int before = there.size()
        // An unreadable file opens as an empty image, and saving that would destroy what it held: where the image is
        // empty, its file must be readable by itself. This throws when it is not.
        def stored = entry.getEntryPath().resolve('data.qpdata')
        if (Files.exists(stored) && before <= 1)
            PathIO.readImageData(stored.toFile(), null, data.getServer(), java.awt.image.BufferedImage)
        def ids = there.collect { it.getID() } as Set
        // An id that is given twice is added once.
        def fresh = given.findAll { ids.add(it.getID()) }
        if (!fresh.isEmpty()) {
            onOwnThread { hierarchy.addObjects(fresh) }
            if (shown == null) entry.saveImageData(data)
        }
        int after = (shown == null ? entry.readHierarchy() : hierarchy).getFlattenedObjectList(null).size()
        if (after < before + fresh.size())
            throw new IllegalStateException('only ' + after + ' of ' + (before + fresh.size()) + ' objects are there')
        line.added = fresh.size()
        line.objects = after - 1     // without the root
        line.saved = shown == null || fresh.isEmpty()
    } catch (Exception error) {
        failed++
        line.ok = false
        line.error = String.valueOf(error)
    }
    println JsonOutput.toJson(line)
}
println JsonOutput.toJson([ok: failed == 0, images: images, failed: failed])
