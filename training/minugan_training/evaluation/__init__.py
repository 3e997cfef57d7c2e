"""A model's figures and thresholds."""
