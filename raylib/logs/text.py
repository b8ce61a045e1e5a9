"""Clean-up, normalisation and stable 64-bit hashes of the texts in search logs.

Everything here works on the unique values of a column: a log repeats its queries and titles many times.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]

# Control characters (C0, DEL, C1) and Unicode's spaces but the plain one. RE2's \s is ASCII only, hence the list.
_ODD = r"\x00-\x1f\x7f-\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_UNCLEAN = rf"[{_ODD}]|  |^ | $"
_SPACES = rf"[{_ODD} ]+"
_BLANK = r"^[\s\p{Z}\p{C}]*$"  # nothing but spaces, control, format and unassigned characters


def clean(values: pa.StringArray) -> tuple[pa.StringArray, npt.NDArray[np.bool_]]:
    """Replace control characters and runs of spaces by one space, trim the ends; also says which values changed.

    A control character in a title carries no meaning for anybody, so it is mended, not a reason to lose a judged pair.
    """
    unclean = pc.match_substring_regex(values, _UNCLEAN)
    changed = unclean.to_numpy(zero_copy_only=False)
    if changed.any():
        mended = pc.utf8_trim(pc.replace_substring_regex(values.filter(unclean), _SPACES, " "), " ")
        values = pc.replace_with_mask(values, unclean, mended)
    return values, changed


def is_blank(values: pa.StringArray) -> npt.NDArray[np.bool_]:
    """Which values show a reader nothing: empty, or only spaces, zero-width and control characters."""
    blank: npt.NDArray[np.bool_] = pc.match_substring_regex(values, _BLANK).to_numpy(zero_copy_only=False)
    return blank


def invalid_utf8(values: pa.StringArray) -> npt.NDArray[np.bool_]:
    """Which values are no valid UTF-8; one vectorised check where all are valid."""
    try:
        values.validate(full=True)
        return np.zeros(len(values), dtype=bool)
    except pa.ArrowInvalid:
        return np.array([not _decodes(value) for value in values.cast(pa.binary()).to_pylist()], dtype=bool)


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def hash_texts(values: list[str] | pa.StringArray) -> Hashes:
    """Stable 64-bit hash of each text (SipHash under pandas' fixed key; a test pins its values)."""
    texts = values.to_pylist() if isinstance(values, pa.Array) else values
    return pd.util.hash_array(np.array(texts, dtype=object), categorize=False)


def mix(left: Hashes, right: Hashes) -> Hashes:
    """One hash of an ordered pair of hashes (the finaliser of splitmix64)."""
    mixed = left * np.uint64(0x9E3779B97F4A7C15) + right
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def pair_hashes(locale: Hashes, query: Hashes, item_id: Hashes) -> Hashes:
    """What `pair_id` writes in hex digits, from the hashes of its three texts."""
    return mix(mix(locale, query), item_id)


def hex_digits(hashes: Hashes) -> pa.StringArray:
    """Each hash as 16 hex digits."""
    digits = pa.py_buffer(hashes.astype(">u8").tobytes().hex().encode())
    offsets = pa.py_buffer(np.arange(0, 16 * len(hashes) + 1, 16, dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), len(hashes), [None, offsets, digits])
