"""Writers of everything a run leaves behind."""
