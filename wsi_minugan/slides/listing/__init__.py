"""Which slides a folder, a pattern or a table names."""
