"""`minugan-train`: parses, calls, prints."""
