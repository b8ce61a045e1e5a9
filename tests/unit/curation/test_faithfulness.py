from typing import Any

import pytest

from raylib.curation.faithfulness import Lexicon, Support, split_words, support


def lexicon(*names: str, locale: str = "en", ignored: tuple[str, ...] = ()) -> Lexicon:
    found = Lexicon(ignored=frozenset(split_words(name) for name in ignored))
    for name in names:
        found.add(locale, name)
    return found


def pair(query: str, title: str, **more: Any) -> dict[str, Any]:
    return {"query": query, "title": title, "locale": "en", "brand": None, "category": None, **more}


def test_names_are_found_whole_and_the_longest_counts() -> None:
    known = lexicon("Norvik", "Norvik Pro", "1.5 l", "red")
    assert known.mentions("en", "NORVIK pro, 1.5l and Redder; norvik!") == [
        ("norvik", "pro"),
        ("1.5", "l"),
        ("norvik",),
    ]
    assert known.mentions("es", "Norvik") == [], "a locale has its own names"


@pytest.mark.parametrize("name", ["42", "1.5 2", "x", "", " "])
def test_what_is_too_common_is_no_name(name: str) -> None:
    assert lexicon(name).names == {}


def test_class_names_never_count() -> None:
    assert lexicon("Exact", "exact fit", ignored=("Exact",)).mentions("en", "exact. exact fit") == [("exact", "fit")]


def test_scripts_without_spaces_are_searched_inside_sentences() -> None:
    known = Lexicon()
    known.add("ja", "赤色")
    assert known.mentions("ja", "このやかんは赤色です") == [("赤", "色")]


def test_a_name_is_supported_by_any_text_of_the_pair() -> None:
    known = lexicon("Norvik", "Dorly", "red", "blue", "1.5 l")
    kettle = pair("red kettle norvik", "kettle 1.5L", attributes="color=blue")
    assert support("asked Norvik in red, item blue, 1.5 l", kettle, known) == Support(4, 0, 1.0)
    found = support("asked Norvik, item Dorly", kettle, known)
    assert found == Support(2, 1, 0.5)
    assert found.unsupported == 0.5


def test_nothing_named_is_nothing_unsupported_and_nothing_asked_is_covered() -> None:
    found = support("fine", pair("kettle", "kettle"), lexicon("Norvik"))
    assert (found.unsupported, found.coverage) == (0.0, 1.0)
