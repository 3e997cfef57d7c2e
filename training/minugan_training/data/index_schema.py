"""The JSON Schema (draft 2020-12) of an index's rows, from the model in code.

``minugan-train data schema`` rewrites ``schemas/index-row.schema.json``; a test fails when they differ.
"""

from __future__ import annotations

import json

from minugan_training.data.index import Entry


def index_schema() -> str:
    """Return the schema of a row as JSON; a row's numbers are numbers in it, though CSV writes all as text.

    Returns
    -------
    str
        JSON Schema, draft 2020-12.
    """
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "wsi-minugan/index-row.schema.json",
    }
    return json.dumps(schema | Entry.model_json_schema(), indent=2) + "\n"
