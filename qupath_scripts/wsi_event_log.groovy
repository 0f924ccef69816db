/*
 * wsi_pipeline: time log and safety snapshots, for the pathologist inside QuPath (0.4.4 to 0.7).
 *
 * What it is for: the project wants to know how long correcting takes compared with drawing from scratch, and
 * nobody should lose work. It writes into the project folder and nowhere else:
 *   events/<rater>-<uuid>.jsonl   which image was open when, which annotation changed when (no mouse, no keys, no screen)
 *   snapshots/<image>/...geojson  a copy of the annotations every five minutes while there are unsaved changes
 * It stays idle in every project that has no file wsi_pipeline.json beside project.qpproj.
 *
 * How to run it: once per start of QuPath, Automate > Project scripts, or at each start by wsi_startup.groovy
 * (QuPath 0.5 and later). Running it again switches it off.
 *
 * What QuPath tells and what it does not (read in its sources):
 *   - a brush stroke comes as ADDED with an id that is known (the object was taken out in silence before), a drag as
 *     many CHANGE_OTHER with isChanging and an ADDED at its end, undo as a new root without objects: so everything is
 *     compared by id and shape, never by the kind of event;
 *   - between two strokes an object may be out of the hierarchy: so what is there is noted inside the listener, at the
 *     end of the change, and only hashed and written elsewhere;
 *   - nothing tells of a save: isChanged() is looked at every five seconds.
 */

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import javafx.application.Platform
import javafx.beans.value.ChangeListener
import javafx.stage.Window
import qupath.lib.common.GeneralTools
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.PathIO
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardOpenOption
import java.security.MessageDigest
import java.util.concurrent.FutureTask
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicReference

class WsiEventLog {

    static final String KEY = 'wsi_pipeline.event_log'
    static final int SCHEMA = 1
    static final long HEARTBEAT_MS = 30000
    static final long SAVE_POLL_MS = 5000
    static final long SNAPSHOT_MS = 300000
    static final int SNAPSHOTS_KEPT = 12

    final QuPathGUI gui
    final LinkedBlockingQueue<Map> work = new LinkedBlockingQueue<Map>()
    volatile boolean running = true
    Thread worker
    Thread atExit

    // Of QuPath's own thread.
    ChangeListener onImage
    Object heard                     // the hierarchy that is listened to
    PathObjectHierarchyListener ear
    boolean inFront = true

    // Of the thread that writes.
    Map known = [:]                  // object uuid -> [roi, hash, class name], of the image in front
    Collection last = []             // the same as it was noted: [object, roi, class name]
    boolean focused = true           // QuPath is in front, with whichever of its windows
    Path folder                      // of the project that the image in front belongs to
    Path file
    Path home                        // the project folder that the file is in
    long seq = 0
    Object data
    String entry
    boolean wasChanged = false
    long lastHeartbeat = 0
    long lastPoll = 0
    long lastSnapshot = 0

    WsiEventLog(QuPathGUI gui) { this.gui = gui }

    // ---- QuPath's own thread: notice and hand over, nothing slow

    void start() {
        onImage = { observable, before, after -> turnTo(after) } as ChangeListener
        gui.imageDataProperty().addListener(onImage)

        worker = new Thread({ loop() } as Runnable, 'wsi-event-log')
        worker.setDaemon(true)
        worker.start()
        atExit = new Thread({ finish() } as Runnable)
        Runtime.getRuntime().addShutdownHook(atExit)
        turnTo(gui.getImageData())
    }

    /** The review queue and the script editor are windows of their own: who works in them has not left QuPath. */
    void lookAround() {
        boolean now = Window.getWindows().any { it.isFocused() }
        if (now == inFront) return
        inFront = now
        work.put([what: 'focus', on: now])
    }

    /** Another image is in front, or none: leave the one before, and listen to this one if its project is ours. */
    void turnTo(Object imageData) {
        if (heard != null) heard.removeListener(ear)
        heard = null
        def project = gui.getProject()
        def found = project == null || imageData == null ? null : project.getEntry(imageData)
        if (found == null || !Files.exists(folderOf(project).resolve('wsi_pipeline.json'))) {
            work.put([what: 'leave'])
            return
        }
        def hierarchy = imageData.getHierarchy()
        def seen = new AtomicReference<Collection>()
        def queue = work
        def note = { glance(hierarchy) }
        ear = { event ->
            if (event.isChanging()) return
            // What waits to be compared is replaced, so that many changes in a row cost one comparison.
            if (seen.getAndSet(note.call()) == null) queue.put([what: 'diff', seen: seen])
        } as PathObjectHierarchyListener
        hierarchy.addListener(ear)
        heard = hierarchy
        work.put([what: 'enter', data: imageData, entry: found.getID(), folder: folderOf(project), now: note.call()])
    }

    /** The annotations with what may change about them; a region itself never changes, it is replaced. */
    Collection glance(Object hierarchy) {
        return hierarchy.getAnnotationObjects().collect {
            [it, it.getROI(), it.getPathClass() == null ? null : it.getPathClass().toString()]
        }
    }

    Path folderOf(Object project) {
        def path = project.getPath()
        return Files.isDirectory(path) ? path : path.getParent()
    }

    /** Switched off: what is heard is let go on QuPath's own thread, what is known is written to its end. */
    void stop() {
        def release = new FutureTask({
            if (onImage != null) gui.imageDataProperty().removeListener(onImage)
            if (heard != null) heard.removeListener(ear)
            heard = null
            return true
        } as java.util.concurrent.Callable)
        if (Platform.isFxApplicationThread()) release.run() else Platform.runLater(release)
        release.get(10, TimeUnit.SECONDS)
        finish()
        if (atExit != null) Runtime.getRuntime().removeShutdownHook(atExit)
    }

    void finish() {
        running = false
        if (worker != null) worker.join(3000)
    }

    // ---- a thread of its own: hash and write

    void loop() {
        while (running || !work.isEmpty()) {
            attempt {
                def task = work.poll(500, TimeUnit.MILLISECONDS)
                if (task != null) handle(task)
                tick()
            }
        }
        attempt { leave() }
    }

    /** A log must never get in the way of the work that it is about. */
    void attempt(Closure step) {
        try {
            step.call()
        } catch (Exception error) {
            System.err.println('wsi_pipeline event log: ' + error)
        }
    }

    void handle(Map task) {
        if (task.what == 'enter') {
            leave()
            enter(task)
        } else if (task.what == 'leave') {
            leave()
        } else if (task.what == 'focus') {
            focused = task.on
            if (entry != null) write([type: focused ? 'focus' : 'blur', image: entry])
        } else if (task.what == 'diff') {
            def now = task.seen.getAndSet(null)
            if (now != null) compare(now)
        }
    }

    void enter(Map task) {
        // Another project was opened: its events belong into its own folder.
        if (file != null && home != task.folder) { file = null; seq = 0 }
        data = task.data
        folder = task.folder
        entry = task.entry
        last = task.now
        known = described(task.now)
        wasChanged = data.isChanged()
        lastSnapshot = System.currentTimeMillis()
        lastHeartbeat = lastSnapshot
        write([type: 'open', image: entry, objects: known.size()])
    }

    void leave() {
        if (entry != null) {
            // Perhaps the changes are being thrown away on purpose; a copy costs nothing, a mistake hours.
            if (data.isChanged()) attempt { snapshot() }
            write([type: 'close', image: entry])
        }
        entry = null
        data = null
        known = [:]
        last = []
    }

    /** What changed since the last look. */
    void compare(Collection seen) {
        if (entry == null) return
        def before = known
        def now = described(seen)
        last = seen
        known = now
        now.each { id, state ->
            def was = before[id]
            if (was == null) write([type: 'edit', image: entry, object: id, created: true, hash: state[1], 'class': state[2]])
            else {
                if (was[1] != state[1]) write([type: 'edit', image: entry, object: id, hash: state[1]])
                if (was[2] != state[2]) write([type: 'class', image: entry, object: id, 'class': state[2]])
            }
        }
        before.each { id, state -> if (!now.containsKey(id)) write([type: 'delete', image: entry, object: id]) }
    }

    /** uuid -> [roi, hash, class name]; only a region that is new is hashed. */
    Map described(Collection seen) {
        def result = [:]
        seen.each { item ->
            def id = item[0].getID().toString()
            def was = known[id]
            def same = was != null && was[0].is(item[1])
            result[id] = [item[1], same ? was[1] : hash(item[1]), item[2]]
        }
        return result
    }

    String hash(Object roi) {
        def text = new StringBuilder()
        if (roi != null) {
            text.append(roi.getRoiName())
            roi.getAllPoints().each { text.append(it.getX()).append(' ').append(it.getY()).append(';') }
        }
        return hex(text.toString()).substring(0, 16)
    }

    String hex(String text) {
        return MessageDigest.getInstance('SHA-256').digest(text.getBytes(StandardCharsets.UTF_8)).encodeHex().toString()
    }

    void tick() {
        Platform.runLater({ lookAround() } as Runnable)
        if (entry == null) return
        long now = System.currentTimeMillis()
        if (focused && now - lastHeartbeat >= HEARTBEAT_MS) {
            lastHeartbeat = now
            write([type: 'heartbeat', image: entry])
        }
        if (now - lastPoll >= SAVE_POLL_MS) {
            lastPoll = now
            boolean changed = data.isChanged()
            if (wasChanged && !changed) write([type: 'save', image: entry])
            wasChanged = changed
        }
        if (wasChanged && now - lastSnapshot >= SNAPSHOT_MS) {
            lastSnapshot = now
            snapshot()
        }
    }

    /** A copy of the annotations outside of data/, so that nothing that goes wrong there reaches it. */
    void snapshot() {
        def place = folder.resolve('snapshots').resolve(entry)
        Files.createDirectories(place)
        def target = place.resolve(System.currentTimeMillis() + '.geojson')
        def partial = place.resolve(target.getFileName().toString() + '.partial')
        PathIO.exportObjectsAsGeoJSON(partial, last.collect { it[0] }, PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
        Files.move(partial, target)
        def all = []
        place.toFile().listFiles().each { if (it.getName().endsWith('.geojson')) all.add(it) }
        all = all.sort { it.getName() }
        while (all.size() > SNAPSHOTS_KEPT) Files.deleteIfExists(all.remove(0).toPath())
    }

    void write(Map event) {
        if (file == null) begin()
        append([seq: seq++, t: System.currentTimeMillis()] + event)
    }

    void begin() {
        def marker = folder.resolve('wsi_pipeline.json')
        def mark = (Map) new JsonSlurper().parseText(new String(Files.readAllBytes(marker), StandardCharsets.UTF_8))
        // An adjudicator works in the project of somebody else, and starts QuPath with -Dwsi.rater=NAME.
        def rater = String.valueOf(System.getProperty('wsi.rater') ?: mark.rater ?: System.getProperty('user.name'))
        def place = folder.resolve('events')
        Files.createDirectories(place)
        file = place.resolve(rater.replaceAll('[^A-Za-z0-9_-]', '_') + '-' + UUID.randomUUID() + '.jsonl')
        home = folder
        append([
            schema : SCHEMA, type: 'header', seq: seq++, t: System.currentTimeMillis(),
            qupath : String.valueOf(GeneralTools.getVersion()), script: 'wsi_event_log 3',
            project: mark.project, run: mark.run_id, batch: mark.batch, rater: rater, source: 'measured',
            host   : hex(hostName()).substring(0, 8)
        ])
    }

    String hostName() {
        try { return InetAddress.getLocalHost().getHostName() } catch (Exception ignored) { return 'unknown' }
    }

    /** Opened, written and closed for each line: a crash loses no more than the line that it falls into. */
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
