from collections import Counter
from typing import Any

import pytest

from raylib.curation.subset import check_classes, choose_rows, kept_rows
from raylib.errors import InputError


def rows(counts: dict[str, int]) -> list[dict[str, Any]]:
    return [{"gold": gold, "key": [gold, i]} for gold, count in counts.items() for i in range(count)]


def chosen(counts: dict[str, int], max_rows: int | None, is_balanced: bool) -> Counter[str]:
    skipped: Counter[str] = Counter()
    everything = rows(counts)
    kept = list(kept_rows(everything, choose_rows(everything, max_rows, is_balanced, seed=0), skipped))
    assert len(kept) + skipped["not_drawn"] == len(everything)
    return Counter(row["gold"] for row in kept)


def test_balanced_classes_give_as_many_rows_as_the_rarest() -> None:
    assert chosen({"a": 50, "b": 7, "c": 20}, None, True) == {"a": 7, "b": 7, "c": 7}
    assert chosen({"a": 50, "b": 7, "c": 20}, 12, True) == {"a": 4, "b": 4, "c": 4}


def test_a_smaller_subset_lies_within_a_larger_one() -> None:
    everything = rows({"a": 300, "b": 100})
    small, large = (choose_rows(everything, size, False, seed=3) for size in (40, 200))
    assert (small.sum(), large.sum()) == (40, 200)
    assert not (small & ~large).any()
    assert (choose_rows(everything, 40, False, seed=4) != small).any()
    assert choose_rows(everything, 400, False, seed=3).all()


def test_without_rows_nothing_is_chosen() -> None:
    assert len(choose_rows([], 3, True, seed=0)) == 0


def test_a_class_without_rows_is_named() -> None:
    with pytest.raises(InputError, match=r"class b \(3 rows in\)"):
        check_classes(Counter(a=2, b=3), Counter(a=1))
    check_classes(Counter(a=2), Counter(a=1))
