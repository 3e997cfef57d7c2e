"""Numbers in sentences."""

from __future__ import annotations


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: "1 slide", "2 slides"; `many` for nouns that do not take an s.

    Parameters
    ----------
    number : int
        How many.
    one : str
        The noun for one.
    many : str, optional
        The noun for others.

    Returns
    -------
    str
        Number and noun.

    Examples
    --------
    >>> pluralize(2, "mitosis", "mitoses")
    '2 mitoses'
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
