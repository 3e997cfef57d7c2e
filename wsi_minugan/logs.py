"""Whose log lines reach the user."""

from __future__ import annotations

import logging

_LIBRARIES = ("tifffile", "imagecodecs", "numcodecs", "glymur", "pydicom")


def hush_libraries() -> None:
    """Keep the log lines of the libraries that read slides from the user.

    They speak of offsets and tags; what matters of it reaches the user as a slide's failure, in a sentence.
    """
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # TIAToolbox has no logger of its own: it writes to the root's.
    logging.getLogger().addFilter(_not_of_tiatoolbox)


def _not_of_tiatoolbox(record: logging.LogRecord) -> bool:
    return "tiatoolbox" not in record.pathname
