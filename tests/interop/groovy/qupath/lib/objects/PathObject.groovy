package qupath.lib.objects

/** Stands in for QuPath's objects: what the script asks them for. */
class PathObject {
    String id
    String pathClass
}
