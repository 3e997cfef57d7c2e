"""Mitoses and nuclei on whole H&E slides: segmented with MiNuGAN, and counted.

    from wsi_minugan import analyze

    result = analyze("slide.svs")
    result.mitoses          # a GeoDataFrame in slide pixels
    result.count.hotspot    # the circle that holds the most of them

Names are loaded when they are used, so that `import wsi_minugan` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_minugan.api.analysis import analyze as analyze
    from wsi_minugan.api.counting import count_mitoses as count_mitoses
    from wsi_minugan.api.counting import fields as fields
    from wsi_minugan.api.counting import hotspot as hotspot
    from wsi_minugan.api.masks import Mask as Mask
    from wsi_minugan.api.models import load_model as load_model
    from wsi_minugan.api.models import predict as predict
    from wsi_minugan.api.models import stain_map as stain_map
    from wsi_minugan.api.result import Result as Result
    from wsi_minugan.errors import MinuganError as MinuganError
    from wsi_minugan.slides.opening import open_slide as open_slide

_HOME = {
    "MinuganError": "wsi_minugan.errors",
    "Mask": "wsi_minugan.api.masks",
    "Result": "wsi_minugan.api.result",
    "analyze": "wsi_minugan.api.analysis",
    "count_mitoses": "wsi_minugan.api.counting",
    "fields": "wsi_minugan.api.counting",
    "hotspot": "wsi_minugan.api.counting",
    "load_model": "wsi_minugan.api.models",
    "open_slide": "wsi_minugan.slides.opening",
    "predict": "wsi_minugan.api.models",
    "stain_map": "wsi_minugan.api.models",
}
"""The module that holds each name."""

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 - all names are in _HOME
__version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("wsi-minugan")
    except metadata.PackageNotFoundError:
        return "0.1.dev0"  # a checkout that is on the path and not installed
