"""Flags of `run`, made from the settings model, so that YAML keys and flags cannot drift apart."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click

from wsi_minugan.config import FLAGS, RunSettings

COUNTING = (
    *("hotspot_mm2", "hpf_diameter_mm", "hotspot_shape", "aspect", "min_tissue", "hotspots", "fields"),
    *("region", "exclude", "tissue_mask", "bounds_offset"),
)
"""Settings that say how mitoses are counted: those that `count` takes too."""
_ALSO = {"hotspot_mm2": ("--area-mm2",)}
"""Other names of flags, where only those of counting are given."""

F = TypeVar("F", bound=Callable[..., Any])


def flag_of(name: str) -> str:
    """Return the flag of a setting as `count` has it.

    Parameters
    ----------
    name : str
        Field of `RunSettings`.

    Returns
    -------
    str
        With its dashes; ``--area-mm2`` for ``hotspot_mm2``.

    Examples
    --------
    >>> flag_of("hotspot_mm2")
    '--area-mm2'
    """
    return _ALSO.get(name, ("--" + FLAGS.get(name, name).replace("_", "-"),))[0]


def counting_options(command: F) -> F:
    """Add the options that say how mitoses are counted.

    Parameters
    ----------
    command : callable
        Function of a click command; it gets the options as keyword arguments.

    Returns
    -------
    callable
        The same function, with an option for each name in `COUNTING`.
    """
    return _add(command, COUNTING)


def setting_options(command: F) -> F:
    """Add one option to a click command for each field of `RunSettings`; options not given are None.

    Parameters
    ----------
    command : callable
        Function of a click command; it gets the options as keyword arguments.

    Returns
    -------
    callable
        The same function. Names, types and help texts of its options are those of the fields.
    """
    return _add(command, None)


def _add(command: F, only: Collection[str] | None) -> F:
    for name, field in reversed(RunSettings.model_fields.items()):
        if only is not None and name not in only:
            continue
        also = _ALSO.get(name, ()) if only is not None else ()
        flag = "--" + FLAGS.get(name, name).replace("_", "-")
        kind = _plain_type(field.annotation)
        text = field.description or ""
        if kind is bool:
            # Flags win over a YAML file, so each switch can also be turned off.
            option = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, is_flag=True, help=text)
        else:
            default = "" if field.default is None else f" [default: {field.default}]"
            option = click.option(
                flag, *also, name, type=_click_type(kind), default=None, help=text + default
            )
        command = option(command)
    return command


def _plain_type(annotation: Any) -> Any:
    if get_origin(annotation) in {Union, types.UnionType}:
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def _click_type(kind: Any) -> Any:
    return click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
