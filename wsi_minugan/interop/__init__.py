"""Results for other programs: spatialdata, napari. Each needs an extra of its own, which is loaded when it is used."""
