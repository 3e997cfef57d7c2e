"""Numbers in sentences."""

from __future__ import annotations


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: "1 slide", "2 slides"; `many` for nouns that do not take an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
