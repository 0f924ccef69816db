package qupath.lib.io

import groovy.json.JsonOutput
import groovy.json.JsonSlurper

import java.nio.file.Files
import java.nio.file.Path

/** GeoJSON as QuPath writes it, for the polygons of the stand-in. */
class PathIO {
    enum GeoJsonExportOptions { PRETTY_JSON, EXCLUDE_MEASUREMENTS, FEATURE_COLLECTION }

    static void exportObjectsAsGeoJSON(Path path, Collection objects, GeoJsonExportOptions... options) {
        def features = objects.collect { [
            type: 'Feature', id: it.getID().toString(),
            geometry: [type: 'Polygon', coordinates: [it.getROI().ring]],
            properties: [objectType: 'annotation'] + (it.getPathClass() == null ? [:] : [classification: [name: it.getPathClass()]])
        ] }
        Files.write(path, JsonOutput.toJson([type: 'FeatureCollection', features: features]).getBytes('UTF-8'))
    }

    static List readObjects(Path path) {
        def json = new JsonSlurper().parse(path.toFile())
        return json.features.collect { feature -> new Expando(getID: { UUID.fromString(feature.id) }) }
    }

    static Object readImageData(File file, Object imageData, Object server, Class type) {
        if (file.text.contains('damaged')) throw new IOException('unknown class')
        return new Object()
    }
}
