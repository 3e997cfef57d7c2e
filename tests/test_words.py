"""Messages speak of one thing as of one."""

import pytest

from wsi_minugan.words import pluralize


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 mitoses"), (1, "1 mitosis"), (2, "2 mitoses"), (11, "11 mitoses")]
)
def test_one_is_not_many(number: int, words: str) -> None:
    assert pluralize(number, "mitosis", "mitoses") == words


def test_most_nouns_take_an_s() -> None:
    assert (pluralize(1, "slide"), pluralize(2, "slide")) == ("1 slide", "2 slides")
