"""napari's layers of a result; runs in an environment of its own (docs/openings.md)."""

from pathlib import Path

import numpy as np
import pytest

from wsi_minugan import Result
from wsi_minugan.interop.napari_reader import layers_of, napari_get_reader


def test_the_reader_takes_result_folders_and_nothing_else(opened: Path, tmp_path: Path) -> None:
    assert napari_get_reader(str(tmp_path)) is None
    reader = napari_get_reader([str(opened)])
    assert reader is not None
    names = [options["name"] for _, options, _ in reader(str(opened))]
    assert {"mitosis_score", "classes", "nuclei", "mitoses", "mitosis outlines", "hot spot"} <= set(names)


def test_layers_are_scaled_in_micrometres_and_outlines_lie_on_labels(opened: Path) -> None:
    result = Result.open(opened)
    layers = {options["name"]: (data, options) for data, options, _ in layers_of(result)}
    labels, on = layers["mitoses"]
    assert on["scale"] == (0.25, 0.25)
    ring = layers["mitosis outlines"][0][0]
    y, x = ring.mean(axis=0) * result.mpp
    row, column = ((v - t) / s for v, t, s in zip((y, x), on["translate"], on["scale"], strict=True))
    near = np.asarray(labels[0][int(row) - 15 : int(row) + 15, int(column) - 15 : int(column) + 15])
    assert near.max() > 0


def test_napari_makes_the_layers(opened: Path) -> None:
    layers = pytest.importorskip("napari.layers", reason="needs napari: make test-openings")
    made = [layers.Layer.create(*layer) for layer in layers_of(Result.open(opened))]
    assert {type(m).__name__ for m in made} == {"Image", "Labels", "Shapes"}
    outlines = next(m for m in made if m.name == "mitosis outlines")
    image = next(m for m in made if m.name == "classes")
    assert (outlines.extent.world[1] <= image.extent.world[1] + 1).all()


def test_the_manifest_names_what_there_is() -> None:
    npe2 = pytest.importorskip("npe2", reason="needs napari: make test-openings")
    import wsi_minugan.interop

    path = Path(wsi_minugan.interop.__file__).with_name("napari.yaml")
    manifest = npe2.PluginManifest.from_file(path)
    manifest.validate_imports()
