"""Dask clusters: local, from a file, SLURM; and what goes wrong on their workers."""
