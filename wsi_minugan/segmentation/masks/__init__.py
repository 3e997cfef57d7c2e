"""Masks on disk as OME-Zarr: their layout, how they are written, and how they are read."""
