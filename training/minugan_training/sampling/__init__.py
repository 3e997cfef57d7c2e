"""Patches for training: where they lie, and how they are changed."""
