"""What outputs say of the model and of the packages that made them."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib import import_module, metadata

from wsi_minugan.minugan.bundle import Bundle

_PACKAGES = {
    "wsi-minugan": "wsi_minugan",
    "torch": "torch",
    "numpy": "numpy",
    "zarr": "zarr",
    "openslide-python": "openslide",
    "shapely": "shapely",
    "opencv": "cv2",
    "scikit-image": "skimage",
}
"""By their names in the files: the modules that shape the results."""


def model_facts(bundle: Bundle) -> dict[str, str]:
    """Return what outputs say of the model.

    Parameters
    ----------
    bundle : Bundle
        The model.

    Returns
    -------
    dict of str to str
        Name, version and digest among them.
    """
    return {
        "name": bundle.card.name,
        "version": bundle.card.version,
        "digest": bundle.digest,
        "weights_sha256": bundle.card.weights_sha256,
        "licence": bundle.card.licence,
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape the results.

    Returns
    -------
    dict of str to str
        What is not known is said as not known.
    """
    return {"python": platform.python_version()} | {
        name: version_of(module) for name, module in _PACKAGES.items()
    }


def version_of(module: str) -> str:
    """Return the version of a module; whoever packed it may have given its package another name, or no name at all.

    Parameters
    ----------
    module : str
        Name under which it is imported.

    Returns
    -------
    str
        Its version, or that it is not known.
    """
    with suppress(metadata.PackageNotFoundError):
        if version := metadata.version(module):
            return version
    try:
        return str(import_module(module).__version__)
    except (ImportError, OSError, AttributeError):
        return "not known"
