package qupath.lib.io

import groovy.json.JsonSlurper
import java.nio.file.Path
import java.util.zip.GZIPInputStream
import qupath.lib.objects.PathObject

/** Stands in for QuPath's reader, which cannot be had here: the class and the id of each feature of a real file. */
class PathIO {
    static List<PathObject> readObjects(Path path) {
        def stream = path.toFile().newInputStream()
        def content = new JsonSlurper().parse(path.toString().endsWith(".gz") ? new GZIPInputStream(stream) : stream, "UTF-8")
        content.features.collect { new PathObject(id: it.id, pathClass: it.properties.classification.name) }
    }
}
