"""Which queries count as one for the split, and which are near-identical. Pure Arrow and NumPy.

The key of a query is a hash of its letters and digits after folding, in no order. So queries that differ only in case,
accents, width of characters, punctuation, spacing, word order, a plural s or swapped letters ("qunato", the commonest
slip) have one key, and the key follows from the query alone: no join, no memory, the same in every log. Unrelated
anagrams share a key too; that only makes two queries share a split. The digits of a number keep their places.

What the key cannot see is a letter too many, too few or wrong. `near_keys` makes such queries meet: two queries are
near-identical when their words are the same but one, and that one differs by one letter inserted, dropped or replaced.
The longer of the two words has at least MIN_WORD letters (as in Lucene's fuzzy queries, shorter words are mostly other
words: shirt, skirt), and neither digits (iphone 12, iphone 13) nor Chinese characters count as letters here: they are
meaning, not spelling. The words' letters are compared without their order, so that a swapped pair of letters elsewhere
in the query changes nothing.

The method is the deletion neighbourhood (SymSpell, Garbe 2012; Bocek et al. 2007): queries at distance 1 share a text
from which at most one letter is dropped. Sums of the letters' hashes make every such text one subtraction.

Shape suffixes: Q queries, L letters (all queries in a row), W words, K neighbour keys.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raylib.logs import text

MIN_WORD = 6  # letters of the longer of two words that may differ by one letter
_APOSTROPHES = dict.fromkeys(map(ord, "‘’ʼ´′"), "'")
# Latin letters that Unicode does not decompose.
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})
_PLURAL = r"([a-z]{2}[a-rt-z])'?s\b"  # shoes, women's; not bus (too short), not dress
_PLURAL_RE = re.compile(_PLURAL, re.ASCII)  # Arrow's RE2 knows the ASCII word boundary only
_RUN_RE = re.compile(r"[0-9]+|[a-z]|[^\x00-\x7f]")  # a number, or a letter
_WORD_SALT = np.uint64(0x5851F42D4C957F2D)

Ints = npt.NDArray[np.int64]


class Letters(NamedTuple):
    """The letters and digits of all queries in a row."""

    code_L: npt.NDArray[np.uint32]  # code points
    place_L: Ints  # of a digit in its number, from 0; 0 for letters
    query_L: Ints  # the query of each letter
    is_first_L: npt.NDArray[np.bool_]  # starts a word
    num_queries: int


def fold(query: str) -> str:
    """Fold width, case and accents: compatibility decomposition, case folding, no combining accents.

    Only the accents of Latin, Greek and Cyrillic are dropped: the marks of Japanese (か, が), Indic and other scripts
    are letters to their readers. What is neither ASCII nor a letter, digit or mark becomes a space.
    """
    return query.lower() if query.isascii() else _fold(query)


@lru_cache(maxsize=1 << 16)
def _fold(query: str) -> str:
    plain = unicodedata.normalize("NFKD", query.translate(_APOSTROPHES)).casefold()
    plain = unicodedata.normalize("NFKD", plain).casefold().translate(_LETTERS | _APOSTROPHES)
    plain = "".join(char for char in plain if not "\u0300" <= char <= "\u036f")
    folded = "".join(char if char.isascii() or _is_letter(char) else " " for char in plain)
    return folded if any(char.isalnum() or not char.isascii() for char in folded) else plain


def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"


def canonical(query: str) -> str:
    """The sorted letters and digits of a query, the form that its key is a hash of; never empty for a visible query.

    A digit has as many dots before it as digits of its number.
    """
    folded = _PLURAL_RE.sub(r"\1", fold(query))
    kept = [f"{'.' * i}{char}" for run in _RUN_RE.findall(folded) for i, char in enumerate(run)]
    return "".join(sorted(kept or folded.replace(" ", "")))


def letters_of(queries: pa.StringArray) -> Letters:
    """Fold queries (no nulls) and cut them into letters; ASCII ones without a Python loop."""
    is_ascii = pc.string_is_ascii(queries)
    folded = pc.ascii_lower(queries)
    if pc.any(pc.invert(is_ascii)).as_py():
        other = queries.filter(pc.invert(is_ascii)).to_pylist()
        folded = pc.replace_with_mask(folded, pc.invert(is_ascii), pa.array([_fold(query) for query in other]))
    folded = pc.replace_substring_regex(folded, _PLURAL, r"\1")
    joined = "".join(folded.to_pylist())
    code_C = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)
    query_C = np.repeat(np.arange(len(queries)), pc.utf8_length(folded).to_numpy(zero_copy_only=False))
    is_kept_C = _IS_KEPT[np.minimum(code_C, 128)]
    is_bare_Q = np.bincount(query_C[is_kept_C], minlength=len(queries)) == 0
    if is_bare_Q.any():  # "!!!": its signs are all it has
        is_kept_C = is_kept_C | (is_bare_Q[query_C] & (code_C != 32))
    kept = np.flatnonzero(is_kept_C)
    query_L = query_C[kept]
    is_first_L = np.append(True, (np.diff(kept) > 1) | (np.diff(query_L) > 0))[: len(kept)]
    code_L = code_C[kept]
    is_digit_L = (code_L >= ord("0")) & (code_L <= ord("9"))
    starts_run_L = is_first_L | ~is_digit_L | ~np.append(False, is_digit_L[:-1])[: len(kept)]
    numbers_L = np.arange(len(kept))
    place_L = numbers_L - np.maximum.accumulate(np.where(starts_run_L, numbers_L, 0))
    return Letters(code_L, place_L, query_L, is_first_L, len(queries))


_IS_KEPT = np.array([chr(code).isalnum() for code in range(128)] + [True])  # beyond ASCII, fold() leaves letters only


def query_hashes(queries: pa.StringArray) -> text.Hashes:
    """The key of each query: queries have one key exactly if they have one canonical form (up to 64-bit collisions)."""
    letters = letters_of(queries)
    starts = np.searchsorted(letters.query_L, np.arange(letters.num_queries + 1))
    return text.mix(_sums(_letter_hashes(letters), starts), np.diff(starts).astype(np.uint64))


def near_keys(queries: pa.StringArray) -> tuple[Ints, text.Hashes]:
    """The neighbour keys of queries: (query_K, key_K).

    Two queries with different words are near-identical exactly if they share a key (up to 64-bit collisions): each
    word of at least MIN_WORD - 1 letters gives the query as it is, and each of at least MIN_WORD letters the query
    without one of that word's letters.
    """
    letters = letters_of(queries)
    hash_L = _letter_hashes(letters)
    first_W = np.append(np.flatnonzero(letters.is_first_L), len(hash_L))
    size_W, query_W = np.diff(first_W), letters.query_L[first_W[:-1]]
    sum_W = _sums(hash_L, first_W)
    word_W = text.mix(sum_W, size_W.astype(np.uint64))
    starts = np.searchsorted(query_W, np.arange(letters.num_queries + 1))
    rest_W = _sums(word_W, starts)[query_W] - word_W  # the query's other words

    may_drop_L = is_spelled(letters.code_L)
    spelled_W = np.add.reduceat(may_drop_L, first_W[:-1], dtype=np.int64) if len(size_W) else size_W
    whole = np.flatnonzero(spelled_W >= MIN_WORD - 1)
    word_L = np.cumsum(letters.is_first_L) - 1
    dropped = np.flatnonzero(may_drop_L & (spelled_W >= MIN_WORD)[word_L]) if len(size_W) else word_L
    w = word_L[dropped]
    keys = [_keys(rest_W[whole], sum_W[whole], size_W[whole]),
            _keys(rest_W[w], sum_W[w] - hash_L[dropped], size_W[w] - 1)]  # fmt: skip
    query_K, key_K = np.concatenate([query_W[whole], query_W[w]]), np.concatenate(keys)
    order = np.lexsort((key_K, query_K))  # a letter that a word has twice gives one key
    query_K, key_K = query_K[order], key_K[order]
    is_new = np.append(True, (np.diff(query_K) > 0) | (key_K[1:] != key_K[:-1]))[: len(key_K)]
    return query_K[is_new], key_K[is_new]


def is_spelled(code_L: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which characters are letters of an alphabet or syllabary, in which one more or less is a slip."""
    codes, inverse = np.unique(code_L, return_inverse=True)
    chars = [chr(code) for code in codes.tolist()]
    flags = [unicodedata.category(c)[0] == "L" and not unicodedata.name(c, "").startswith("CJK") for c in chars]
    return np.array(flags, dtype=bool)[inverse]


def _keys(rest_W: text.Hashes, sum_W: text.Hashes, size_W: Ints) -> text.Hashes:
    return text.mix(rest_W, text.mix(sum_W, size_W.astype(np.uint64)) ^ _WORD_SALT)


def _letter_hashes(letters: Letters) -> text.Hashes:
    return text.mix(letters.code_L.astype(np.uint64), letters.place_L.astype(np.uint64) + _WORD_SALT)


def _sums(values: text.Hashes, starts: Ints) -> text.Hashes:
    """Sums mod 2^64 of values[starts[i]:starts[i + 1]]."""
    total = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values, out=total[1:])
    return total[starts[1:]] - total[starts[:-1]]
