"""Perspectives: versioned prompts from which the teacher reasons about a pair.

One YAML file a perspective: instruction, output contract and few-shot examples by label schema and locale. A user
adds a perspective by writing such a file. The published prompts do not exist (arXiv 2601.21611 names the perspectives
only), so these are ours.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field, ValidationError

from raylib.config import Section, read_yaml
from raylib.errors import ConfigError
from raylib.labels import LabelSchema
from raylib.prompts.answers import PAIR_FIELDS, format_answer, format_pair

PERSPECTIVE_DIR = Path(__file__).parent / "perspectives"
PERSPECTIVES = ("user_intent", "structured_analysis", "business_rule")
UNIFIED = "unified"
FALLBACK_LOCALE = "en"
LANGUAGES = {"us": "en", "jp": "ja"}  # the ESCI release names countries where the prompts name languages

Message = dict[str, str]

# Every field, with what `quote` treats differently from plain words: a change of the code's layout changes the hash.
PROBE = dict.fromkeys(PAIR_FIELDS, 'a "b" \\ <|im_end|> {c} 1\n2\t\u200b\u202e\uff1c ')


class ExamplePair(Section):
    """The pair of a few-shot example; the fields that a prompt shows."""

    query: str = Field(min_length=1, description="query text")
    locale: str = Field(description="locale of the query")
    title: str = Field(min_length=1, description="item title")
    brand: str | None = Field(None, description="brand, where known")
    category: str | None = Field(None, description="category path, where known")
    attributes: str | None = Field(None, description="attributes as sellers write them")


class Example(Section):
    """One few-shot example."""

    pair: ExamplePair = Field(description="what the user message shows")
    rationale: str = Field(min_length=1, description="the reasoning; 25-45 English words in the shipped files")
    label: str = Field(description="class name of the schema under which the example stands")


class Perspective(Section):
    """A prompt: instruction, output contract and few-shot examples."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ignored_types=(cached_property,))
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="name in the tables' `perspective` column")
    version: int = Field(ge=1, description="raised whenever the text changes")
    instruction: str = Field(min_length=1, description="what to judge, and how to look at it")
    output_contract: str = Field(min_length=1, description="the form of the answer")
    few_shots: dict[str, dict[str, tuple[Example, ...]]] = Field(
        default_factory=dict, strict=False, description="schema name -> locale -> examples, most telling first"
    )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load one YAML file; raises ConfigError naming it and every wrong key."""
        values = read_yaml(path)
        try:
            # few_shots are read in lax mode because YAML has lists where the frozen model has tuples.
            return cls.model_validate(values, strict=False)
        except ValidationError as error:
            raise ConfigError(f"{path}: not a perspective: {error}") from None

    @cached_property
    def hash(self) -> str:
        """16 hex digits over the whole prompt and how the code lays out a pair; stands in every run's provenance."""
        text = json.dumps([self.model_dump(mode="json"), format_pair(PROBE)], sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def check(self, schema: LabelSchema, num_few_shots: int) -> None:
        """Raise ConfigError when there are fewer examples than asked for, or one has a label outside the schema."""
        by_locale = self.few_shots.get(schema.name, {})
        available = len(by_locale.get(FALLBACK_LOCALE, ()))
        if num_few_shots > available:
            raise ConfigError(
                f"perspective {self.name!r}: num_few_shots is {num_few_shots}, but it has {available} examples for "
                f"schema {schema.name!r} and locale {FALLBACK_LOCALE!r}; lower num_few_shots or add examples"
            )
        for locale, examples in by_locale.items():
            for example in examples:
                if example.label not in schema.names:
                    raise ConfigError(
                        f"perspective {self.name!r}, few-shot of {schema.name!r} / {locale!r}: label "
                        f"{example.label!r} is no class of the schema ({', '.join(schema.names)})"
                    )

    def examples(self, schema: LabelSchema, locale: str, num_few_shots: int) -> tuple[Example, ...]:
        """The first `num_few_shots` examples of the locale, or of `en` where the locale has fewer."""
        by_locale = self.few_shots.get(schema.name, {})
        own = by_locale.get(LANGUAGES.get(locale, locale), ())
        found = own if len(own) >= num_few_shots else by_locale.get(FALLBACK_LOCALE, ())
        return found[:num_few_shots]

    def prefix(self, schema: LabelSchema, locale: str, num_few_shots: int) -> list[Message]:
        """System message and few-shot turns: constant for a (perspective, schema, locale), so prefill is shared."""
        labels = "\n".join(f"- {item.name}: {item.definition}" for item in schema.classes)
        system = f"{self.instruction.strip()}\n\nLabels:\n{labels}\n\n{self.output_contract.strip()}"
        messages = [{"role": "system", "content": system}]
        for example in self.examples(schema, locale, num_few_shots):
            messages.append({"role": "user", "content": format_pair(example.pair.model_dump())})
            messages.append({"role": "assistant", "content": format_answer(example.rationale.strip(), example.label)})
        return messages

    def messages(self, schema: LabelSchema, pair: Mapping[str, Any], num_few_shots: int) -> list[Message]:
        """Chat messages that ask for a rationale and a label of `pair` (keys as in the pairs table)."""
        prefix = self.prefix(schema, str(pair["locale"]), num_few_shots)
        return [*prefix, {"role": "user", "content": format_pair(pair)}]


def load_perspective(name_or_path: str) -> Perspective:
    """Load a shipped perspective by name or a user's YAML file by path."""
    shipped = PERSPECTIVE_DIR / f"{name_or_path}.yaml"
    path = shipped if shipped.exists() else Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in PERSPECTIVE_DIR.glob("*.yaml")))
        raise ConfigError(f"perspective {name_or_path!r}: neither a shipped one ({names}) nor a YAML file")
    return Perspective.load(path)
