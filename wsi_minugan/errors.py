"""Every error that a user can cause or act on, under one base class.

A message says what happened, where, and what to do. The command line prints it as it is, without a traceback.
"""

RETRY = "wsi-minugan retry OUT"
"""The command as a message writes it that does not know the output folder; who tells the user fills it in."""


class MinuganError(Exception):
    """Base of all errors of this project; its text is a sentence for the user.

    Attributes
    ----------
    exit_status : int
        What a command that ends by it returns: 2 is wrong use, 1 what whoever calls may mend and try again.
    """

    exit_status = 2


class InputError(MinuganError):
    """An input path, table or option that cannot be used."""


class NoSlidesError(InputError):
    """A folder or pattern that holds no slides, or none yet."""


class SettingsError(MinuganError):
    """A setting, or a configuration file, that does not fit the model of settings."""


class SlideError(MinuganError):
    """A slide that cannot be processed; the other slides of a batch go on."""


class SlideUnreadableError(SlideError):
    """The file is missing, truncated, or not an image that any reader opens."""


class TileUnreadableError(SlideError):
    """A tile inside a slide does not decode."""


class MppError(SlideError):
    """No plausible resolution: absent, outside 0.05 to 2 um/px, or unequal in x and y."""


class WrongColoursError(SlideError):
    """The colours are not those that were scanned: header and pixels contradict each other, or tissue cannot look so."""


class WhichPictureError(SlideError):
    """The file holds several pictures, and does not say which of them is the slide."""


class NotBrightfieldError(SlideError):
    """The image is not 8-bit RGB brightfield (16-bit, fluorescence, grey)."""


class NoTissueError(SlideError):
    """No tissue was found, so there is nothing to analyse."""


class ModelError(MinuganError):
    """A model bundle that is missing, damaged, or of a wrong schema."""


class DeviceError(MinuganError):
    """The device asked for is not there."""


class OutputError(MinuganError):
    """The output folder cannot be used: unreadable, read-only, full, or of another run."""


class DiskFullError(OutputError):
    """There is no room left to write: no wrong use, and the same command goes on once there is some."""

    exit_status = 1


class ClusterError(MinuganError):
    """The cluster is gone or gives no worker: no wrong use, and the same command goes on once it is there."""

    exit_status = 1


class LockedError(OutputError):
    """Another live run holds the output folder."""


class DataError(MinuganError):
    """Training data that is missing or wrong."""


class TrainingError(MinuganError):
    """Training that cannot go on (loss not a number, memory exhausted)."""
