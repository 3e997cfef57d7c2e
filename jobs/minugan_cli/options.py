"""Flags of `run`, made from the settings model, so that YAML keys and flags cannot drift apart."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click

from wsi_minugan.config import FLAGS, RunSettings

F = TypeVar("F", bound=Callable[..., Any])


def setting_options(command: F) -> F:
    """Add one option to a click command for each field of `RunSettings`; options not given are None."""
    for name, field in reversed(RunSettings.model_fields.items()):
        flag = "--" + FLAGS.get(name, name).replace("_", "-")
        kind = _plain_type(field.annotation)
        text = field.description or ""
        if kind is bool:
            # Flags win over a YAML file, so each switch can also be turned off.
            option = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, is_flag=True, help=text)
        else:
            default = "" if field.default is None else f" [default: {field.default}]"
            option = click.option(flag, name, type=_click_type(kind), default=None, help=text + default)
        command = option(command)
    return command


def _plain_type(annotation: Any) -> Any:
    if get_origin(annotation) in {Union, types.UnionType}:
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def _click_type(kind: Any) -> Any:
    return click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
