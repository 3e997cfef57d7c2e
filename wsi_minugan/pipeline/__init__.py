"""One slide from start to end: plan, stages, results."""
