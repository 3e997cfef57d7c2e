"""The base of all settings and of all files that are read back: frozen, and strict about names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class FrozenModel(BaseModel):
    """A model that cannot be changed and that takes no field it does not know.

    Attributes
    ----------
    former_names : mapping of str to str
        Fields that had another name in earlier versions: the former name, and the name now. Files with the former name
        still load.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    former_names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not cls.former_names.keys() & values.keys():
            return values
        return {cls.former_names.get(key, key): value for key, value in values.items()}
