// Runs the scripts of qupath_scripts against classes that stand in for QuPath's, and plays a pathologist.
//   run.groovy log|batch|review|startup SCRIPTS PROJECT
import groovy.json.JsonSlurper
import qupath.lib.gui.QuPathGUI

class Property {
    def listeners = []
    def value
    void addListener(Object listener) { listeners.add(listener) }
    void removeListener(Object listener) { listeners.remove(listener) }
    void set(Object after) {
        def before = value
        value = after
        new ArrayList(listeners).each { it.changed(this, before, after) }
    }
}

class Point { double x, y }

class Roi {
    List ring
    double getBoundsWidth() { return ring[1][0] - ring[0][0] }
    double getBoundsHeight() { return ring[2][1] - ring[1][1] }
    double getCentroidX() { return (ring[0][0] + ring[2][0]) / 2 }
    double getCentroidY() { return (ring[0][1] + ring[2][1]) / 2 }
    String getRoiName() { return 'Polygon' }
    List getAllPoints() { return ring.collect { new Point(x: it[0], y: it[1]) } }
}

class Annotation {
    boolean locked, tile
    String name
    Map measurements = [:]
    boolean isLocked() { return locked }
    boolean isTile() { return tile }
    boolean isAnnotation() { return !tile }
    Object getMeasurementList() {
        return new Expando(get: { measurements.containsKey(it) ? measurements[it] : Double.NaN }, put: { k, v -> measurements[k] = v })
    }
    UUID id = UUID.randomUUID()
    Roi roi
    String pathClass
    UUID getID() { return id }
    Roi getROI() { return roi }
    String getPathClass() { return pathClass }
}

class Hierarchy {
    List objects = []
    List listeners = []
    List tiles = []
    List selected = []
    int classified = 0
    void addListener(Object listener) { listeners.add(listener) }
    void removeListener(Object listener) { listeners.remove(listener) }
    Collection getAnnotationObjects() { return new ArrayList(objects) }
    Collection getDetectionObjects() { return new ArrayList(tiles) }
    Object getSelectionModel() { return new Expando(getSelectedObjects: { selected }) }
    int nObjects() { return objects.size() + tiles.size() }
    void fireObjectClassificationsChangedEvent(Object source, Collection changed) { classified += changed.size() }
    List getFlattenedObjectList(Object ignored) { return [new Annotation()] + objects }
    void addObjects(Collection more) { objects.addAll(more) }
    void fire(boolean changing) { new ArrayList(listeners).each { it.hierarchyChanged(new Expando(isChanging: { changing })) } }
}

class Data {
    Hierarchy hierarchy = new Hierarchy()
    boolean changed = false
    boolean isChanged() { return changed }
    void setChanged(boolean value) { changed = value }
    Object getServer() { return null }
}

class Entry {
    String id
    String name
    File folder
    Map metadata = [:]
    Data data = new Data()
    int saves = 0
    String getID() { return id }
    String getImageName() { return name }
    Map getMetadata() { return metadata }
    Object getEntryPath() { return folder.toPath() }
    Data readImageData() { return data }
    Hierarchy readHierarchy() { return data.hierarchy }
    void saveImageData(Data saved) { saves++; saved.changed = false }
}

class Project {
    File file
    List entries = []
    Object getPath() { return file.toPath() }
    Object getEntry(Object data) { return entries.find { it.data.is(data) } }
    List getImageList() { return entries }
    int syncs = 0
    void syncChanges() { syncs++ }
    List getPathClasses() { return [null, 'Tumor', 'Stroma', 'Review'] }
}

def square = { double x, double y, double side -> new Roi(ring: [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]) }
def scripts = new File(args[1])
def folder = new File(args[2])
def project = new Project(file: new File(folder, 'project.qpproj'))
['1', '2'].each {
    def entry = new Entry(id: it, name: 'slide ' + it, folder: new File(folder, 'data/' + it))
    entry.metadata.wsi_slide_id = 'slide-' + it
    entry.data.hierarchy.objects.add(new Annotation(roi: square(10, 20, 30), pathClass: 'Tumor'))
    project.entries.add(entry)
}
def evaluate = { String name, Closure change ->
    def binding = new Binding()
    binding.setVariable('getProject', { project })
    new GroovyShell(this.class.classLoader, binding).evaluate(change(new File(scripts, name).text), name)
}
def plain = { it }

if (args[0] == 'log') {
    def image = new Property()
    QuPathGUI.instance = new QuPathGUI(project: project, imageDataProperty: image)
    // The same script with a quick clock.
    def quick = { it.replace('HEARTBEAT_MS = 30000', 'HEARTBEAT_MS = 400').replace('SAVE_POLL_MS = 5000', 'SAVE_POLL_MS = 50') }
    def show = { data -> QuPathGUI.instance.imageData = data; image.set(data) }
    def rest = { Thread.sleep(700) }
    evaluate('wsi_event_log.groovy', quick)
    def data = project.entries[0].data
    def hierarchy = data.hierarchy
    def first = hierarchy.objects[0]
    show(data)
    rest()
    // A stroke: out of the hierarchy in silence, then there again with the same id and another region.
    hierarchy.objects.remove(first)
    hierarchy.fire(true)
    rest()
    first.roi = square(10, 20, 60)
    hierarchy.objects.add(first)
    data.changed = true
    hierarchy.fire(false)
    rest()
    first.pathClass = 'Stroma'
    hierarchy.fire(false)
    rest()
    def drawn = new Annotation(roi: square(500, 500, 5))
    hierarchy.objects.add(drawn)
    hierarchy.fire(false)
    rest()
    data.changed = false
    rest()
    // First to another window of QuPath, then to another program, and back.
    def main = javafx.stage.Window.windows[0]
    def panel = new javafx.stage.Window()
    javafx.stage.Window.windows.add(panel)
    def turnTo = { window ->
        [main, panel].each { it.focused = it.is(window) }
        rest()
        rest()
    }
    turnTo(panel)
    turnTo(null)
    turnTo(main)
    hierarchy.objects.remove(drawn)
    data.changed = true
    hierarchy.fire(false)
    rest()
    show(project.entries[1].data)
    rest()
    evaluate('wsi_event_log.groovy', quick)
    println 'listeners left: ' + (image.listeners.size() + hierarchy.listeners.size() + project.entries[1].data.hierarchy.listeners.size())
    println 'objects: ' + first.id + ' ' + drawn.id
} else if (args[0] == 'review') {
    def image = new Property()
    def gui = new QuPathGUI(project: project, imageDataProperty: image)
    QuPathGUI.instance = gui
    def data = project.entries[0].data
    def hierarchy = data.hierarchy
    project.entries[1].metadata.wsi_priority = '0001'
    // Out of order, and the last one judged in an earlier session.
    [[2, 'edge', null], [1, 'two classes', null], [3, 'small', 1d]].each { rank, name, verdict ->
        def tile = new Annotation(roi: square(1000 * rank, 0, 256), pathClass: 'Review', tile: true, name: name)
        tile.measurements['Review: rank'] = (double) rank
        if (verdict != null) tile.measurements['Review: verdict'] = verdict
        hierarchy.tiles.add(tile)
    }
    def tell = { String what ->
        println groovy.json.JsonOutput.toJson([
            what: what, at: gui.viewer.centre, labels: javafx.scene.control.Label.all*.text.findAll { it },
            verdicts: hierarchy.tiles.collectEntries { [it.name, it.measurements['Review: verdict']] },
            state: project.entries*.metadata*.wsi_state, progress: project.entries[0].metadata.wsi_progress,
            saves: project.entries[0].saves, syncs: project.syncs, changed: data.changed, classified: hierarchy.classified,
            classes: hierarchy.objects*.pathClass, opened: gui.opened
        ])
    }
    evaluate('wsi_review.groovy', plain)
    tell('no image')
    def press = { code, Map how = [:] ->
        def event = new javafx.scene.input.KeyEvent([code: code as javafx.scene.input.KeyCode] + how)
        if (how.alt) gui.scene.filters.each { it.handle(event) }
        else javafx.scene.Scene.last.onKeyPressed.handle(event)
        tell((how.alt ? 'Alt ' : how.shortcut ? 'Ctrl ' : '') + code + (event.consumed ? '' : ' passed on'))
    }
    gui.imageData = data
    image.set(data)
    tell('open')
    press('A')
    press('Z')
    press('F', [alt: true])
    press('P')
    press('DIGIT1')
    hierarchy.selected = [new Annotation(locked: true)]
    press('DIGIT1')
    hierarchy.selected = [hierarchy.objects[0]]
    press('NUMPAD2')
    press('S', [shortcut: true])
    press('A')
    press('R')
    press('O')
    press('I')
    def listeners = { gui.scene.filters.size() + image.listeners.size() }
    int before = listeners()
    evaluate('wsi_review.groovy', plain)
    println 'listeners: ' + before + ' ' + listeners()
} else if (args[0] == 'startup') {
    def gui = new QuPathGUI(project: project, imageDataProperty: new Property())
    QuPathGUI.instance = gui
    qupath.lib.gui.prefs.PathPrefs.startupScript = new File(scripts, 'wsi_startup.groovy').path
    gui.runner = { File file -> evaluate(file.name, plain) }
    2.times { evaluate('wsi_startup.groovy', plain) }
    def (queue, log, about) = gui.items
    println 'menu: ' + gui.items*.text + ' on: ' + log.selected
    log.onAction.handle(null)
    println 'on: ' + log.selected
    log.onAction.handle(null)
    println 'on: ' + log.selected
    about.onAction.handle(null)
    println 'about: ' + javafx.scene.control.Alert.last.text.replace('\n', ' ')
    log.onAction.handle(null)
} else {
    // Headless QuPath runs a script once for each image.
    2.times { evaluate('wsi_export.groovy', plain) }
    2.times { evaluate('wsi_import.groovy', plain) }
    println 'saves: ' + project.entries.collect { it.saves }
}
