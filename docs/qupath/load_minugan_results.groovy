/*
 * Load the results of wsi-minugan onto the images of the open project.
 *
 * Set the folder of results below, then choose Run > Run for project. An image is matched by its file name.
 * Objects that an earlier run of this script loaded are replaced. Other objects stay.
 * Written for QuPath 0.5 and later.
 */
import groovy.json.JsonSlurper
import qupath.lib.io.PathIO

// ---- Settings ----
def outFolder = new File("/path/to/OUT")   // the folder given to "wsi-minugan run ... -o"
def loadNuclei = false                     // needs "wsi-minugan export OUT --to geojson.gz", see docs/how-to/qupath.md
// ------------------

def OURS = ["Mitosis", "Hot spot", "High-power field", "Nucleus"]

def server = getCurrentServer()
def names = server.getURIs().collect { new File(it.getPath()).getName() } as Set
names << getProjectEntry().getImageName()

// The result folder whose manifest names this image's file, or whose name is the image's without its ending.
def isOurs = { File folder, Map manifest ->
    def file = manifest.slide.file_name
    file != null ? names.contains(file) : names.any { it.replaceFirst(/\.[^.]+$/, "") == folder.getName() }
}
def slurper = new JsonSlurper()
def matches = (outFolder.listFiles() ?: [] as File[])
    .findAll { new File(it, "manifest.json").isFile() }
    .collect { [folder: it, manifest: slurper.parse(new File(it, "manifest.json"), "UTF-8")] }
    .findAll { isOurs(it.folder, it.manifest) }

if (matches.isEmpty()) {
    println "No results for ${names} in ${outFolder}. Check outFolder, and that the slide is done (wsi-minugan status)."
    return
}
if (matches.size() > 1) {
    println "Several results for ${names}: ${matches.collect { it.folder.getName() }}. Nothing is loaded."
    return
}

def folder = matches[0].folder
def slide = matches[0].manifest.slide
def origin = matches[0].manifest.geojson_origin_px ?: [0, 0]
def isCropped = server.getWidth() != slide.width_px || server.getHeight() != slide.height_px
if (isCropped && origin == [0, 0]) {
    println "QuPath shows ${server.getWidth()} x ${server.getHeight()} px of ${slide.width_px} x ${slide.height_px} px: it crops this " +
        "slide to its bounds. Run wsi-minugan with --bounds-offset. Nothing is loaded."
    return
}

// An export holds the mitoses, too: of it only the nuclei are taken.
def name = folder.getName()
def exported = ["qupath/${name}.nuclei.geojson.gz", "export/${name}.geojson.gz", "export/${name}.geojson"].collect { new File(outFolder, it) }
def nuclei = loadNuclei ? exported.find { it.isFile() } : null
if (loadNuclei && nuclei == null)
    println "There is no ${exported[1]}; nuclei are left out."

def old = getAllObjects(false).findAll { OURS.contains(it.getPathClass()?.toString()) }
removeObjects(old, true)
def objects = [] + PathIO.readObjects(new File(folder, "mitoses.geojson").toPath())
if (nuclei != null)
    objects += PathIO.readObjects(nuclei.toPath()).findAll { it.getPathClass()?.toString() == "Nucleus" }
addObjects(objects)
fireHierarchyUpdate()
println "${name}: ${objects.size()} objects loaded, ${old.size()} replaced."
