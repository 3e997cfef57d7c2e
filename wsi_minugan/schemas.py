"""JSON Schemas (draft 2020-12) of every file that another program reads, from the models in code.

``python -m wsi_minugan.schemas`` rewrites the folder ``schemas``; a test fails when they differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from wsi_minugan.config import RunSettings
from wsi_minugan.counting.agreement import Agreement
from wsi_minugan.counting.models import Count
from wsi_minugan.minugan.card import ModelCard
from wsi_minugan.outputs.geojson import FeatureCollection
from wsi_minugan.outputs.models import Manifest, RunFile, StatusFile
from wsi_minugan.review.store import ReviewFile

FOLDER = Path(__file__).parents[1] / "schemas"
MODELS: dict[str, type[BaseModel]] = {
    "agreement": Agreement,
    "card": ModelCard,
    "count": Count,
    "manifest": Manifest,
    "mitoses": FeatureCollection,
    "review": ReviewFile,
    "run": RunFile,
    "settings": RunSettings,
    "status": StatusFile,
}


def schema_of(name: str) -> dict[str, Any]:
    """Return the schema of one kind of file.

    Parameters
    ----------
    name : str
        One of `MODELS`.

    Returns
    -------
    dict of str to Any
        JSON Schema, draft 2020-12.
    """
    mode: Any = "validation" if name == "settings" else "serialization"
    schema = MODELS[name].model_json_schema(mode=mode)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"wsi-minugan/{name}.schema.json",
    } | schema


def write_schemas(folder: Path = FOLDER) -> None:
    """Write all schemas.

    Parameters
    ----------
    folder : Path
        Where the files go; made if missing.
    """
    folder.mkdir(exist_ok=True)
    for name in MODELS:
        (folder / f"{name}.schema.json").write_text(json.dumps(schema_of(name), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    write_schemas()
