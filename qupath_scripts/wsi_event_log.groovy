/*
 * wsi_pipeline: time log and safety snapshots, for the pathologist inside QuPath (0.4.4 to 0.7).
 *
 * What it is for: the project wants to know how long correcting takes compared with drawing from scratch, and
 * nobody should lose work. It writes into the project folder and nowhere else:
 *   events/<rater>-<uuid>.jsonl   which image was open when, which annotation changed when (no mouse, no keys, no screen)
 *   snapshots/<image>/...geojson  a copy of the annotations every five minutes while there are unsaved changes
 * It stays idle in every project that has no file wsi_pipeline.json beside project.qpproj.
 *
 * How to run it: once per start of QuPath, Automate > Project scripts, or set it as startup script
 * (Edit > Preferences > General > Startup script, QuPath 0.5 and later). Running it again switches it off.
 */

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import javafx.application.Platform
import javafx.beans.value.ChangeListener
import qupath.lib.common.GeneralTools
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.viewer.QuPathViewerListener
import qupath.lib.io.PathIO
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardOpenOption
import java.security.MessageDigest
import java.time.Instant
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit

class WsiEventLog {

    static final String KEY = 'wsi_pipeline.event_log'
    static final int SCHEMA = 1
    static final long HEARTBEAT_MS = 30000
    static final long SAVE_POLL_MS = 5000
    static final long SNAPSHOT_MS = 300000

    final QuPathGUI gui
    final LinkedBlockingQueue<Map> work = new LinkedBlockingQueue<Map>()
    final Map known = [:]            // object uuid -> [hash, class name], of the image in front
    final List undo = []             // what to do to take every listener away again
    volatile boolean running = true
    volatile boolean focused = true
    Thread worker
    Path file
    Path home                        // the project folder that the file is in
    long seq = 0
    Object watched                   // the hierarchy that is listened to
    Object watchedData
    String entry
    boolean wasChanged = false
    long lastHeartbeat = 0
    long lastPoll = 0
    long lastSnapshot = 0

    WsiEventLog(QuPathGUI gui) { this.gui = gui }

    // ---- where things are

    Path projectFolder() {
        def project = gui.getProject()
        def path = project == null ? null : project.getPath()
        if (path == null) return null
        return Files.isDirectory(path) ? path : path.getParent()
    }

    Map marker() {
        def folder = projectFolder()
        if (folder == null) return null
        def marker = folder.resolve('wsi_pipeline.json')
        if (!Files.exists(marker)) return null
        return (Map) new JsonSlurper().parseText(new String(Files.readAllBytes(marker), StandardCharsets.UTF_8))
    }

    String entryOf(Object imageData) {
        def project = gui.getProject()
        if (project == null || imageData == null) return null
        def found = project.getEntry(imageData)
        return found == null ? null : found.getID()
    }

    // ---- listening: on QuPath's own thread, so only enqueue

    void start() {
        def viewers = gui.metaClass.respondsTo(gui, 'getAllViewers') ? gui.getAllViewers() : gui.getViewers()
        def listener = [
            imageDataChanged     : { viewer, before, after -> work.put([what: 'image', data: after]) },
            visibleRegionChanged : { viewer, shape -> },
            selectedObjectChanged: { viewer, object -> },
            viewerClosed         : { viewer -> }
        ] as QuPathViewerListener
        viewers.each { viewer ->
            viewer.addViewerListener(listener)
            undo.add({ viewer.removeViewerListener(listener) })
        }
        def front = { observable, before, after -> work.put([what: 'image', data: after]) } as ChangeListener
        gui.imageDataProperty().addListener(front)
        undo.add({ gui.imageDataProperty().removeListener(front) })

        def stage = gui.getStage()
        focused = stage.isFocused()
        def focus = { observable, before, after -> work.put([what: 'focus', on: after]) } as ChangeListener
        stage.focusedProperty().addListener(focus)
        undo.add({ stage.focusedProperty().removeListener(focus) })

        work.put([what: 'image', data: gui.getImageData()])
        worker = new Thread({ loop() } as Runnable, 'wsi-event-log')
        worker.setDaemon(true)
        worker.start()
        Runtime.getRuntime().addShutdownHook(new Thread({ stop() } as Runnable))
    }

    void stop() {
        if (!running) return
        running = false
        if (worker != null) worker.join(3000)
        undo.each { it.call() }
    }

    // ---- writing: on a thread of its own

    void loop() {
        while (running) {
            def task = work.poll(1, TimeUnit.SECONDS)
            try {
                if (task != null) handle(task)
                tick()
            } catch (Exception error) {
                // A log must never get in the way of the work that it is about.
                System.err.println('wsi_pipeline event log: ' + error)
            }
        }
        try { leave() } catch (Exception error) { System.err.println('wsi_pipeline event log: ' + error) }
    }

    void handle(Map task) {
        if (task.what == 'image') {
            if (task.data != null && task.data.is(watchedData)) return
            leave()
            enter(task.data)
        } else if (task.what == 'focus') {
            focused = task.on
            if (entry != null) write([type: focused ? 'focus' : 'blur', image: entry])
        } else if (task.what == 'diff') {
            diff()
        }
    }

    void enter(Object data) {
        watchedData = data
        if (data == null || marker() == null) return
        // Another project was opened: its events belong into its own folder.
        if (file != null && home != projectFolder()) { file = null; seq = 0 }
        entry = entryOf(data)
        if (entry == null) return
        watched = data.getHierarchy()
        known.clear()
        annotations().each { known[it.getID().toString()] = describe(it) }
        def queue = work
        def listener = { event -> if (!event.isChanging()) queue.put([what: 'diff']) } as PathObjectHierarchyListener
        watched.addListener(listener)
        def hierarchy = watched
        undo.add({ hierarchy.removeListener(listener) })
        wasChanged = data.isChanged()
        lastSnapshot = System.currentTimeMillis()
        write([type: 'open', image: entry, objects: known.size()])
    }

    void leave() {
        if (entry != null) {
            diff()
            write([type: 'close', image: entry])
        }
        entry = null
        watched = null
        watchedData = null
        known.clear()
    }

    /** What changed since the last look. A brush stroke comes as a removal and an addition, an undo as a new root:
     *  so everything is compared by uuid and shape, never by the kind of event. */
    void diff() {
        if (entry == null || watched == null) return
        def now = [:]
        annotations().each { now[it.getID().toString()] = describe(it) }
        now.each { id, state ->
            def before = known[id]
            if (before == null) write([type: 'edit', image: entry, object: id, created: true, hash: state[0], 'class': state[1]])
            else {
                if (before[0] != state[0]) write([type: 'edit', image: entry, object: id, hash: state[0]])
                if (before[1] != state[1]) write([type: 'class', image: entry, object: id, 'class': state[1]])
            }
        }
        known.each { id, state -> if (!now.containsKey(id)) write([type: 'delete', image: entry, object: id]) }
        known.clear()
        known.putAll(now)
    }

    void tick() {
        if (entry == null) return
        long now = System.currentTimeMillis()
        if (focused && now - lastHeartbeat >= HEARTBEAT_MS) {
            lastHeartbeat = now
            write([type: 'heartbeat', image: entry])
        }
        if (now - lastPoll >= SAVE_POLL_MS) {
            lastPoll = now
            boolean changed = watchedData.isChanged()
            if (wasChanged && !changed) write([type: 'save', image: entry])
            wasChanged = changed
        }
        if (wasChanged && now - lastSnapshot >= SNAPSHOT_MS) {
            lastSnapshot = now
            snapshot()
        }
    }

    void snapshot() {
        def folder = projectFolder().resolve('snapshots').resolve(entry)
        Files.createDirectories(folder)
        def target = folder.resolve(System.currentTimeMillis() + '.geojson')
        def partial = folder.resolve(target.getFileName().toString() + '.partial')
        PathIO.exportObjectsAsGeoJSON(partial, annotations(), PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
        Files.move(partial, target)
        def all = Files.list(folder).withCloseable { stream -> stream.iterator().toList() }
        all = all.findAll { it.toString().endsWith('.geojson') }.sort { it.getFileName().toString() }
        while (all.size() > 12) Files.deleteIfExists(all.remove(0))
    }

    Collection annotations() { return new ArrayList(watched.getAnnotationObjects()) }

    List describe(Object object) {
        def digest = MessageDigest.getInstance('SHA-256')
        def roi = object.getROI()
        if (roi != null) {
            digest.update(roi.getRoiName().getBytes(StandardCharsets.UTF_8))
            roi.getAllPoints().each { digest.update((it.getX() + ' ' + it.getY() + ';').getBytes(StandardCharsets.UTF_8)) }
        }
        def name = object.getPathClass() == null ? null : object.getPathClass().toString()
        return [digest.digest().encodeHex().toString().substring(0, 16), name]
    }

    void write(Map event) {
        if (file == null) begin()
        if (file == null) return
        append([seq: seq++, t: System.currentTimeMillis()] + event)
    }

    void begin() {
        def mark = marker()
        if (mark == null) return
        def rater = String.valueOf(mark.rater ?: System.getProperty('user.name'))
        def folder = projectFolder().resolve('events')
        Files.createDirectories(folder)
        file = folder.resolve(rater.replaceAll('[^A-Za-z0-9_-]', '_') + '-' + UUID.randomUUID() + '.jsonl')
        home = projectFolder()
        append([
            schema : SCHEMA, type: 'header', seq: seq++, t: System.currentTimeMillis(),
            qupath : String.valueOf(GeneralTools.getVersion()), script: 'wsi_event_log 1',
            project: mark.project, run: mark.run_id, batch: mark.batch, rater: rater, source: 'measured',
            host   : MessageDigest.getInstance('SHA-256').digest(hostName().getBytes(StandardCharsets.UTF_8)).encodeHex().toString().substring(0, 8)
        ])
    }

    String hostName() {
        try { return InetAddress.getLocalHost().getHostName() } catch (Exception ignored) { return 'unknown' }
    }

    void append(Map line) {
        byte[] bytes = (JsonOutput.toJson(line) + '\n').getBytes(StandardCharsets.UTF_8)
        Files.write(file, bytes, StandardOpenOption.CREATE, StandardOpenOption.APPEND)
    }
}

def gui = QuPathGUI.getInstance()
if (gui == null) {
    println 'wsi_pipeline event log: there is no QuPath window, nothing to log'
    return
}
def log = System.getProperties().get(WsiEventLog.KEY)
if (log != null) {
    // The class of an earlier run is another class: it is asked to stop by name.
    log.stop()
    System.getProperties().remove(WsiEventLog.KEY)
    println 'wsi_pipeline event log: off'
    return
}
log = new WsiEventLog(gui)
System.getProperties().put(WsiEventLog.KEY, log)
Platform.runLater({ log.start() } as Runnable)
println 'wsi_pipeline event log: on. It notes which image is open and which annotation changes, for the time study of this project.'
println 'Run the script again to switch it off.'
