import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylib.logs import text


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("red shoes", "red shoes"),
        ("  red \t shoes\r\n", "red shoes"),
        ("red\x00shoes", "red shoes"),
        ("red\x85\u2028shoes", "red shoes"),
        ("赤い\u3000靴", "赤い 靴"),
        ("family 👨‍👩‍👧", "family 👨‍👩‍👧"),  # zero-width joiners carry meaning
    ],
)
def test_clean_mends_control_characters_and_spaces(raw: str, cleaned: str) -> None:
    values, changed = text.clean(pa.array([raw]))
    assert values.to_pylist() == [cleaned]
    assert changed.tolist() == [raw != cleaned]


@given(st.lists(st.text(max_size=12)))
@settings(deadline=None)
def test_clean_leaves_no_control_character_and_is_idempotent(raw: list[str]) -> None:
    values, _ = text.clean(pa.array(raw, pa.string()))
    again, changed = text.clean(values)
    assert not changed.any()
    assert again.equals(values)
    assert not any(unicodedata.category(char) == "Cc" for value in values.to_pylist() for char in value)


def test_blank_is_what_shows_nothing() -> None:
    values = pa.array(["", " ", "\u3000", "\u200b\ufeff", "\x00", "x", "靴"])
    assert text.is_blank(values).tolist() == [True] * 5 + [False] * 2


def test_invalid_utf8_is_found_by_value() -> None:
    values = pa.array([b"caf\xc3\xa9", b"caf\xe9", b"\xed\xa0\x80"]).view(pa.string())
    assert text.invalid_utf8(values).tolist() == [False, True, True]


def test_hashes_are_pinned() -> None:
    """A table written by one version must fit one written by the next: ids and splits may never move."""
    hashes = text.hash_texts(["red shoes", "靴", ""])
    assert text.hex_digits(hashes).to_pylist() == PINNED
    assert text.hex_digits(text.mix(hashes[:1], hashes[1:2])).to_pylist() == [PINNED_MIX]


PINNED = ["2cbb8eaa761d4fd7", "5db72e25a41d962e", "186da64456263a46"]
PINNED_MIX = "15b6b5e908cb7492"


def test_mix_depends_on_the_order() -> None:
    one, other = np.array([1], dtype=np.uint64), np.array([2], dtype=np.uint64)
    assert text.mix(one, other) != text.mix(other, one)
