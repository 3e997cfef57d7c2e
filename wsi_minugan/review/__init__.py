"""Reviews: a corrected set of mitoses against the original, its new count, and what training can learn from it."""
