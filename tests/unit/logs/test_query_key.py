import sys
import unicodedata
from collections import Counter
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylib.logs import text
from raylib.logs.query_key import MIN_WORD, canonical, fold, near_keys, query_hashes

LATIN = "abcdeghilmnoprstuéñöç"
WORDS = st.lists(st.text(LATIN, min_size=1, max_size=8), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Red  Shoes", "red shoes"),
        ("ＮＩＫＥ", "nike"),
        ("STRASSE", "straße"),
        ("ｶﾒﾗ", "カメラ"),
        ("camara niños", "Cámara Ninos"),
        ("t-shirt", "T shirt"),
        ("tshirts", "t shirt"),
        ("shoes red", "red shoe"),
        ("women’s boots", "womens boot"),
        ("vintra x5 cadeira", "cadeira vintra x5"),
        ("qunato lamp", "quanto lamp"),
        ("저렴한 텐트", "텐트 저렴한"),
        ("søren łódź", "soren lodz"),
        ("wi-fi router!", "wifi router"),
    ],
)
def test_spellings_of_one_query_have_one_canonical_form(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("size 24", "size 42"),
        ("iphone 12", "iphone 13"),
        ("か", "が"),
        ("dress", "dres"),
        ("bus", "bu"),
        ("!!!", "?"),
        ("👟", "👗"),
        ("कि", "का"),
    ],
)
def test_other_queries_have_another(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@given(WORDS, st.randoms(use_true_random=False), st.sampled_from([" ", "  ", " - ", "\u3000"]))
@settings(deadline=None)
def test_order_case_accents_width_and_punctuation_do_not_matter(words: list[str], random: object, gap: str) -> None:
    shuffled = list(words)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    changed = unicodedata.normalize("NFD", gap.join(shuffled).upper())
    wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in changed)
    assert canonical(wide) == canonical(" ".join(words))


@given(st.text(max_size=20))
@settings(deadline=None)
def test_folding_is_idempotent_and_leaves_a_form(query: str) -> None:
    assert fold(fold(query)) == fold(query)
    has_letters = any(unicodedata.category(char)[0] in "LN" for char in query)
    assert canonical(query) or not has_letters


def test_folding_is_idempotent_for_every_character() -> None:
    chars = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    assert [char for char in chars if fold(fold(char)) != fold(char)] == []


@given(
    st.lists(
        st.text(min_size=1, max_size=12) | WORDS.map(" ".join) | st.text("ab12 ", min_size=1, max_size=8),
        min_size=1,
        max_size=20,
    )
)
@settings(deadline=None)
def test_the_key_is_that_of_the_canonical_form(queries: list[str]) -> None:
    keys = query_hashes(pa.array(queries)).tolist()
    forms = [canonical(query) for query in queries]
    assert len(set(zip(keys, forms, strict=True))) == len(set(keys)) == len(set(forms))
    assert query_hashes(pa.array(queries[:1])).tolist() == keys[:1], "whatever else is in the batch"


def test_keys_are_pinned() -> None:
    """Splits and buckets of one version must be those of the next."""
    keys = query_hashes(pa.array(["red shoes", "靴 niño", "!!!"]))
    assert text.hex_digits(keys).to_pylist() == PINNED


PINNED = ["6d9b32843d71b394", "186f29903e64f922", "8f1b9e1a7cdd4951"]


def near(queries: list[str]) -> set[tuple[int, int]]:
    query_K, key_K = near_keys(pa.array(queries))
    keys = [set(key_K[query_K == i].tolist()) for i in range(len(queries))]
    return {(i, j) for i, j in combinations(range(len(queries)), 2) if keys[i] & keys[j]}


def words(query: str) -> Counter[str]:
    """The words of a Latin query after folding, each with its letters sorted."""
    folded = fold(query).split()
    singular = [w[:-1] if len(w) >= 4 and w[-1] == "s" and w[-2] != "s" and w[:-1].isalpha() else w for w in folded]
    return Counter("".join(sorted(word)) for word in singular)


def is_near(one: str, other: str) -> bool:
    """The definition, word by word and without a hash."""
    left, right = words(one) - words(other), words(other) - words(one)
    if left.total() == right.total() == 0:
        return any(len(word) >= MIN_WORD - 1 for word in words(one))  # the same words
    if left.total() != 1 or right.total() != 1:
        return False
    (a,), (b,) = left, right
    more, fewer = Counter(a) - Counter(b), Counter(b) - Counter(a)
    return max(len(a), len(b)) >= MIN_WORD and more.total() <= 1 and fewer.total() <= 1


@given(st.lists(st.text("abes ", min_size=1, max_size=16).filter(str.strip), min_size=2, max_size=12, unique=True))
@settings(deadline=None, max_examples=300)
def test_near_identical_equals_a_plain_reference(queries: list[str]) -> None:
    expected = {(i, j) for i, j in combinations(range(len(queries)), 2) if is_near(queries[i], queries[j])}
    assert near(queries) == expected


@pytest.mark.parametrize(
    ("one", "other", "is_found"),
    [
        ("red blender", "red blnder", True),
        ("red blender", "blunder red", True),
        ("addidas shoes", "adidas shoe", True),
        ("batidoras", "batidoraz", True),
        ("shirt", "skirt", False),  # too short: another word
        ("iphone 12", "iphone 13", False),
        ("blender x1000000", "blender x1000001", False),
        ("red blender", "blue blender", False),
        ("紺色長袖冬用上着", "紺色半袖冬用上着", False),
        ("スニーカース", "スニーカー", True),
        ("tent kelvo air", "vintra kettle", False),
    ],
)
def test_near_identical_by_example(one: str, other: str, is_found: bool) -> None:
    assert near([one, other]) == ({(0, 1)} if is_found else set())


def test_no_query_and_no_letter_have_no_key() -> None:
    assert len(near_keys(pa.array([], pa.string()))[1]) == 0
    assert len(near_keys(pa.array(["", "12", "!"]))[1]) == 0
    assert query_hashes(pa.array([], pa.string())).dtype == np.uint64
