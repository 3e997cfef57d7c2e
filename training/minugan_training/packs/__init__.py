"""Packs: an experiment's data in one small file, and training from it on a machine that has nothing else."""
