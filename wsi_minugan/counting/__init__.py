"""Counts: hot spots and scores. Pure functions over points and areas."""
