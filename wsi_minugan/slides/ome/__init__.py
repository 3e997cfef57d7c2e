"""OME-TIFF and OME-Zarr, read by tifffile and zarr: what OpenSlide does not open, without TIAToolbox."""
