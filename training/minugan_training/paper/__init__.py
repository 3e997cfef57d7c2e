"""The paper's experiments, tables, charts and pictures."""
