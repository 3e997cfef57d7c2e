/*
 * Runs a QuPath script on images that are open one after another, with the functions that QuPath gives to scripts.
 * Arguments: the script; images as JSON, [{"file", "name", "width", "height", "there": [class, ...]}, ...].
 * Prints a line of JSON for each image: what the script said, and the classes that are on the image afterwards.
 */
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import qupath.lib.objects.PathObject

def script = new File(args[0]).text
new JsonSlurper().parseText(args[1]).each { image ->
    def objects = image.there.collect { new PathObject(id: "drawn before", pathClass: it) }
    def said = new StringWriter()
    def server = new Expando(getURIs: { [new URI("file:///slides/" + image.file)] }, getWidth: { image.width }, getHeight: { image.height })
    def given = [
        out                : said,
        getCurrentServer   : { server },
        getProjectEntry    : { new Expando(getImageName: { image.name }) },
        getAllObjects      : { boolean withRoot -> objects },
        removeObjects      : { Collection gone, boolean keepChildren -> objects = objects - gone },
        addObjects         : { Collection more -> objects = objects + more },
        fireHierarchyUpdate: { -> },
    ]
    new GroovyShell(this.class.classLoader, new Binding(given)).evaluate(script)
    println JsonOutput.toJson([said: said.toString(), objects: objects.collect { [it.pathClass, it.id] }])
}
