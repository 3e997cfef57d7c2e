"""A model's networks as they run: in this process, or in one that several share."""
