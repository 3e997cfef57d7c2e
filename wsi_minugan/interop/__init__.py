"""Results for spatialdata, napari and QuPath, and the model for TIAToolbox.

Each but QuPath needs an extra of its own, which is loaded when it is used.
"""
