"""From published layouts of data sets to the index."""
