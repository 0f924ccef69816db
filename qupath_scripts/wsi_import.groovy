/*
 * wsi_pipeline: add regions from GeoJSON to the images of the project. Adds only: an object whose id is there already
 * is left as it is, and nothing is ever removed.
 *
 * In QuPath: Automate > Project scripts.   Close the open image first, so that it is not written twice.
 * Headless:  QuPath script wsi_import.groovy -p project.qpproj      (without --save: the script saves what it changes)
 *
 * Files are looked for in import/<slide id>.geojson beside project.qpproj. One JSON line per image is printed.
 */

import groovy.json.JsonOutput
import qupath.lib.io.PathIO

import java.nio.file.Files

def project = getProject()
if (project == null) {
    println JsonOutput.toJson([ok: false, error: 'no project is open'])
    return
}
def path = project.getPath()
def folder = (Files.isDirectory(path) ? path : path.getParent()).resolve('import')

def metadataOf = { entry, key ->
    entry.metaClass.respondsTo(entry, 'getMetadata') ? entry.getMetadata().get(key) : entry.getMetadataValue(key)
}

int failed = 0
int images = 0
project.getImageList().each { entry ->
    def slide = metadataOf(entry, 'wsi_slide_id')
    def file = slide == null ? null : folder.resolve(slide + '.geojson')
    if (file == null || !Files.exists(file)) return
    images++
    def line = [ok: true, entry: entry.getID(), image: entry.getImageName(), slide: slide]
    try {
        def data = entry.readImageData()
        def hierarchy = data.getHierarchy()
        def there = hierarchy.getFlattenedObjectList(null)
        int before = there.size()
        // An unreadable file opens as an empty image, and saving that would destroy what it held: where the image is
        // empty, its file must be readable by itself. This throws when it is not.
        def stored = entry.getEntryPath().resolve('data.qpdata')
        if (Files.exists(stored) && before <= 1)
            PathIO.readImageData(stored.toFile(), null, data.getServer(), java.awt.image.BufferedImage)
        def ids = there.collect { it.getID() } as Set
        def fresh = PathIO.readObjects(file).findAll { !ids.contains(it.getID()) }
        if (!fresh.isEmpty()) {
            hierarchy.addObjects(fresh)
            entry.saveImageData(data)
        }
        int after = entry.readHierarchy().getFlattenedObjectList(null).size()
        if (after < before + fresh.size())
            throw new IllegalStateException('only ' + after + ' of ' + (before + fresh.size()) + ' objects were saved')
        line.added = fresh.size()
        line.objects = after
    } catch (Exception error) {
        failed++
        line.ok = false
        line.error = String.valueOf(error)
    }
    println JsonOutput.toJson(line)
}
println JsonOutput.toJson([ok: failed == 0, images: images, failed: failed])
