"""The Python API: one slide from start to finish, its results as tables and arrays, and counts.

`import wsi_minugan` hands out these names; nothing is loaded before it is used.
"""
