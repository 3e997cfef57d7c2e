"""From patches to class maps, objects and masks on disk."""
