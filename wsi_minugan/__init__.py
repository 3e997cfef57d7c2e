"""MiNuGAN on whole slides: mitoses and nuclei, segmented and counted."""

from __future__ import annotations

from typing import Any

__version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("wsi-minugan")
    except metadata.PackageNotFoundError:
        return "0.1.dev0"  # a checkout that is on the path and not installed
