"""Business rules: a user's YAML, applied after the student to items by brand, category and locale.

    - name: recalled brand
      when: {brand: [acme], locale: [en, es]}
      max_tier: 1
    - name: own brand
      when: {brand: [ours]}
      score_times: 1.1

Rules apply in their order; a rule with several conditions applies where all hold, a condition where one of its values
is the item's, compared without case. `score_times` changes the score (at most 1) and with it the tier, `min_tier` and
`max_tier` bound the tier alone. Labels and probabilities stay the student's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from raylib.config import Section, read_yaml
from raylib.errors import ConfigError

MAX_RULES = 1000


class Condition(Section):
    """Values that a field of an item may have; null: any."""

    brand: list[str] | None = Field(None, min_length=1, description="brands")
    category: list[str] | None = Field(None, min_length=1, description="categories, or the first parts of their paths")
    locale: list[str] | None = Field(None, min_length=1, description="locales of the request")

    @model_validator(mode="after")
    def _says_something(self) -> "Condition":
        if self.brand is None and self.category is None and self.locale is None:
            raise ValueError("name brand, category or locale; a rule for every item is none")
        return self


class Rule(Section):
    """What happens to the items that meet a condition."""

    name: str = Field(min_length=1, description="shown in explanations, counters and decision logs")
    when: Condition = Field(description="which items")
    score_times: float | None = Field(None, ge=0.0, le=10.0, description="factor of the score; the result is at most 1")
    min_tier: int | None = Field(None, ge=0, le=4, description="lowest tier the item gets")
    max_tier: int | None = Field(None, ge=0, le=4, description="highest tier the item gets; 1 = filtered")

    @model_validator(mode="after")
    def _does_something(self) -> "Rule":
        if self.score_times is None and self.min_tier is None and self.max_tier is None:
            raise ValueError("say score_times, min_tier or max_tier")
        if self.min_tier is not None and self.max_tier is not None and self.min_tier > self.max_tier:
            raise ValueError(f"min_tier {self.min_tier} is above max_tier {self.max_tier}")
        return self


class _RuleFile(Section):
    rules: list[Rule] = Field(max_length=MAX_RULES)

    @model_validator(mode="after")
    def _distinct(self) -> "_RuleFile":
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules are called {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class Applied:
    """What one rule did to an item."""

    rule: str
    score: float  # after it
    tier: int  # after it


def load_rules(path: str | None) -> tuple[Rule, ...]:
    """The rules of a YAML file (a list), none without a path; raises ConfigError naming every mistake."""
    if path is None:
        return ()
    if not Path(path).is_file():
        raise ConfigError(f"rules: {path}: no such file")
    content = read_yaml(Path(path))
    try:
        return tuple(_RuleFile.model_validate({"rules": content}).rules)
    except ValidationError as error:
        mistakes = [f"{path}: {'.'.join(map(str, one['loc'][1:])) or 'file'}: {one['msg']}" for one in error.errors()]
        raise ConfigError("\n".join(mistakes)) from None


class Rules:
    """Rules made ready for many items."""

    def __init__(self, rules: Sequence[Rule], tier_thresholds: Sequence[float]) -> None:
        self._thresholds = tuple(tier_thresholds)
        self._rules = [(rule, _folded(rule.when)) for rule in rules]

    def apply(self, item: Mapping[str, Any], locale: str, score: float, tier: int) -> list[Applied]:
        """What each rule that applies did, in order; empty where none does."""
        applied: list[Applied] = []
        for rule, wanted in self._rules:
            if not _meets(item, locale, wanted):
                continue
            if rule.score_times is not None:
                score = min(1.0, score * rule.score_times)
                tier = sum(score >= threshold for threshold in self._thresholds)
            tier = max(tier, rule.min_tier or 0)
            tier = min(tier, 4 if rule.max_tier is None else rule.max_tier)
            applied.append(Applied(rule.name, score, tier))
        return applied


def _folded(condition: Condition) -> dict[str, tuple[str, ...]]:
    return {
        field: tuple(value.casefold().strip() for value in values)
        for field, values in condition.model_dump().items()
        if values is not None
    }


def _meets(item: Mapping[str, Any], locale: str, wanted: Mapping[str, tuple[str, ...]]) -> bool:
    for field, values in wanted.items():
        found = ((locale if field == "locale" else item.get(field)) or "").casefold().strip()
        # a category is a path ("shoes > running"): its first parts name a branch of the tree
        is_met = found in values or (
            field == "category" and any(found.startswith((f"{value} >", f"{value}/")) for value in values)
        )
        if not is_met:
            return False
    return True
