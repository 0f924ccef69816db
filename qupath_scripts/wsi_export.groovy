/*
 * wsi_pipeline: write the annotations of every image of the project as GeoJSON, with their provenance.
 *
 * In QuPath: Automate > Project scripts, then Run (once; not "Run for project"). What is saved is written, not what is open.
 * Headless:  QuPath script wsi_export.groovy -p project.qpproj      (never with --save: nothing is changed)
 *
 * Files go to export/<slide id>.geojson beside project.qpproj: a FeatureCollection with a member "provenance".
 * One JSON line per image is printed and one at the end, because QuPath exits with 0 whatever happens to single images.
 */

import groovy.json.JsonOutput
import qupath.lib.common.GeneralTools
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.PathIO

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.time.Instant

def project = getProject()
if (project == null) {
    println JsonOutput.toJson([ok: false, error: 'no project is open'])
    return
}
def path = project.getPath()
// Headless, QuPath runs a script once for each image; the first time does the whole project.
def once = 'wsi_pipeline.export ' + path
if (QuPathGUI.getInstance() == null) {
    if (System.getProperty(once) != null) return
    System.setProperty(once, 'done')
}
def folder = (Files.isDirectory(path) ? path : path.getParent()).resolve('export')
Files.createDirectories(folder)

def metadataOf = { entry, key ->
    entry.metaClass.respondsTo(entry, 'getMetadata') ? entry.getMetadata().get(key) : entry.getMetadataValue(key)
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
def entries = new ArrayList(project.getImageList())
entries.each { entry ->
    def line = [ok: true, entry: entry.getID(), image: entry.getImageName()]
    try {
        def slide = metadataOf(entry, 'wsi_slide_id') ?: ('entry-' + entry.getID())
        line.slide = slide
        line.state = metadataOf(entry, 'wsi_state')
        checkWhole(entry)
        def objects = entry.readHierarchy().getAnnotationObjects()
        def provenance = [
            slide: slide, entry: entry.getID(), state: line.state, rater: metadataOf(entry, 'wsi_rater'),
            batch: metadataOf(entry, 'wsi_batch'), arm: metadataOf(entry, 'wsi_arm'), objects: objects.size(),
            qupath: String.valueOf(GeneralTools.getVersion()), script: 'wsi_export 2', time: Instant.now().toString()
        ]
        def partial = folder.resolve(slide + '.geojson.partial')
        def plain = folder.resolve(slide + '.geojson.plain')
        PathIO.exportObjectsAsGeoJSON(plain, objects, PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
        plain.toFile().withInputStream { source ->
            // The object's opening brace is written anew, with the provenance behind it.
            if (source.read() != 123) throw new IllegalStateException('QuPath wrote no JSON object')
            partial.toFile().withOutputStream { target ->
                def head = '{"provenance":' + JsonOutput.toJson(provenance) + ','
                target.write(head.getBytes(StandardCharsets.UTF_8))
                target << source
            }
        }
        Files.delete(plain)
        Files.move(partial, folder.resolve(slide + '.geojson'), StandardCopyOption.REPLACE_EXISTING)
        line.objects = objects.size()
    } catch (Exception error) {
        failed++
        line.ok = false
        line.error = String.valueOf(error)
    }
    println JsonOutput.toJson(line)
}
println JsonOutput.toJson([ok: failed == 0, images: entries.size(), failed: failed])
