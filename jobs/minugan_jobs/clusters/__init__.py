"""Dask clusters: local, from a file, SLURM; and what goes wrong on their workers."""

from wsi_minugan.errors import SettingsError

# Dask reads its user's own configuration when it is first imported, and this room is the first to do so.
try:
    import distributed  # noqa: F401
except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
    raise SettingsError(
        f"Dask's own configuration on this machine cannot be read: {error}. Correct that file (most often below ~/.config/dask), "
        "or leave it out for this run by setting the variable DASK_CONFIG=/dev/null."
    ) from error
