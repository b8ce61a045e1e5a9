"""Does a rationale keep to the pair? Brands and attribute values that it names and neither text holds are unsupported.

No model judges here: the brands and attribute values of the whole pairs table are the words to look for, those of the
pair's own locale only, so that a rationale may translate (`rojo` as `red`) without being taken for a liar. What this
cannot see: values that no item of the table has, and claims without a value ("it is waterproof").
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from raylib import tables

# Scripts that are written without spaces count character by character, so that a value is found inside a sentence.
_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"\d+(?:[.,]\d+)?|[{_NO_SPACES}]|[^\W\d_{_NO_SPACES}]+")
_ITEM_FIELDS = ("title", "brand", "category", "attributes")
Words = tuple[str, ...]


@dataclass
class Lexicon:
    """Brands and attribute values by locale; of each first word the whole names, the longest first."""

    names: dict[str, dict[str, list[Words]]] = field(default_factory=dict)
    ignored: frozenset[Words] = frozenset()

    def add(self, locale: str, text: str | None) -> None:
        """Add a brand or value; numbers without a unit and single letters are too common to mean anything."""
        words = split_words(text or "")
        if not words or words in self.ignored or all(word[0].isdigit() for word in words) or len("".join(words)) < 2:
            return
        of_word = self.names.setdefault(locale, {}).setdefault(words[0], [])
        if words not in of_word:
            of_word.append(words)
            of_word.sort(key=len, reverse=True)

    def mentions(self, locale: str, text: str) -> list[Words]:
        """The names in a text, each once, in order; where several begin at a word the longest counts."""
        of_locale = self.names.get(locale, {})
        words = split_words(text)
        found: dict[Words, None] = {}
        i = 0
        while i < len(words):
            name = next((n for n in of_locale.get(words[i], ()) if words[i : i + len(n)] == n), None)
            if name:
                found[name] = None
            i += len(name) if name else 1
        return list(found)


@dataclass(frozen=True)
class Support:
    """How a rationale keeps to its pair."""

    num_mentions: int
    num_unsupported: int
    coverage: float  # share of the brand and values in the query that the rationale names; 1 where there are none

    @property
    def unsupported(self) -> float:
        """Share of what it names that neither text holds; 0 where it names nothing."""
        return self.num_unsupported / self.num_mentions if self.num_mentions else 0.0


def read_lexicon(pairs_uri: str, ignored: Iterable[str] = ()) -> Lexicon:
    """The brands and attribute values of a pairs table; names in `ignored` (the classes', say) never count."""
    lexicon = Lexicon(ignored=frozenset(split_words(text) for text in ignored))
    columns = ["locale", "brand", "attributes"]
    seen: set[tuple[str, str]] = set()
    for batch in tables.read_batches(pairs_uri, tables.PAIRS, columns):
        for locale in pc.unique(batch.column("locale")).to_pylist():
            rows = batch.filter(pc.equal(batch.column("locale"), locale))
            brands = pc.unique(rows.column("brand")).to_pylist()
            values = (value for text in pc.unique(rows.column("attributes")).to_pylist() for value in _values(text))
            for text in (*brands, *values):
                if text and (locale, text) not in seen:
                    seen.add((locale, text))
                    lexicon.add(locale, text)
    return lexicon


def support(rationale: str, pair: Mapping[str, Any], lexicon: Lexicon) -> Support:
    """Check a rationale against the query and the item of its pair."""
    locale = pair["locale"]
    sources = [split_words(str(pair[name])) for name in ("query", *_ITEM_FIELDS) if pair.get(name)]
    named = lexicon.mentions(locale, rationale)
    unsupported = [words for words in named if not any(_holds(source, words) for source in sources)]
    asked = lexicon.mentions(locale, pair["query"])
    written = split_words(rationale)
    covered = sum(_holds(written, words) for words in asked)
    return Support(len(named), len(unsupported), covered / len(asked) if asked else 1.0)


def split_words(text: str) -> Words:
    """Words in the form in which they are compared: NFKC, case folded, numbers apart from their units."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _holds(source: Words, words: Words) -> bool:
    return any(source[i : i + len(words)] == words for i in range(len(source) - len(words) + 1))


def _values(attributes: str | None) -> list[str]:
    """Values of attributes as sellers write them: `color=red; size=42`."""
    return [part.partition("=")[2].strip() for part in (attributes or "").split(";") if "=" in part]
