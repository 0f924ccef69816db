/*
 * wsi_pipeline: write the annotations of every image of the project as GeoJSON, with their provenance.
 *
 * In QuPath: Automate > Project scripts (for the whole project, whatever image is open).
 * Headless:  QuPath script wsi_export.groovy -p project.qpproj      (never with --save: nothing is changed)
 *
 * Files go to export/<slide id>.geojson beside project.qpproj. One JSON line per image is printed, because QuPath
 * exits with 0 whatever happens to single images.
 */

import groovy.json.JsonOutput
import qupath.lib.io.PathIO

import java.nio.file.Files
import java.nio.file.StandardCopyOption

def project = getProject()
if (project == null) {
    println JsonOutput.toJson([ok: false, error: 'no project is open'])
    return
}
def path = project.getPath()
def folder = (Files.isDirectory(path) ? path : path.getParent()).resolve('export')
Files.createDirectories(folder)

def metadataOf = { entry, key ->
    entry.metaClass.respondsTo(entry, 'getMetadata') ? entry.getMetadata().get(key) : entry.getMetadataValue(key)
}

int failed = 0
project.getImageList().each { entry ->
    def line = [ok: true, entry: entry.getID(), image: entry.getImageName()]
    try {
        def slide = metadataOf(entry, 'wsi_slide_id') ?: ('entry-' + entry.getID())
        line.slide = slide
        line.state = metadataOf(entry, 'wsi_state')
        def objects = entry.readHierarchy().getAnnotationObjects()
        def target = folder.resolve(slide + '.geojson')
        def partial = folder.resolve(slide + '.geojson.partial')
        PathIO.exportObjectsAsGeoJSON(partial, objects, PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
        Files.move(partial, target, StandardCopyOption.REPLACE_EXISTING)
        line.objects = objects.size()
    } catch (Exception error) {
        failed++
        line.ok = false
        line.error = String.valueOf(error)
    }
    println JsonOutput.toJson(line)
}
println JsonOutput.toJson([ok: failed == 0, images: project.getImageList().size(), failed: failed])
