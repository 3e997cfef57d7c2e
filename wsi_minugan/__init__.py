"""MiNuGAN on whole slides: mitoses and nuclei, segmented and counted."""

__version__ = "0.1.0"
