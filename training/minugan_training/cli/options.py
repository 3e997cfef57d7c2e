"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
INDEX = click.option("--index", type=PATH, required=True, help="Index of the data.")
ROOT = click.option("--root", type=PATH, required=True, help="What the index's paths are below.")
RADIUS_UM = click.option(
    "--radius-um", type=click.FloatRange(0, min_open=True), default=7.5, show_default=True
)
FIELDS_OF_SPLITS = click.option(
    "--split",
    "splits",
    multiple=True,
    default=("val",),
    show_default=True,
    help="Of the index; whole fields.",
)
