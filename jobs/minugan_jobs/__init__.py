"""Batches of slides on Dask: state, clusters, progress."""
