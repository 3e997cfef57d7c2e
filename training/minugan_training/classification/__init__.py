"""The second stage: a classifier that judges the first stage's candidates."""
