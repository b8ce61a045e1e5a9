"""Label schemas: the classes, their definitions and their gains. Data, not code: one YAML file a schema."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, ValidationError, field_validator

from raylib.config import Section, read_yaml
from raylib.errors import ConfigError, InputError

SCHEMA_DIR = Path(__file__).parent / "label_schemas"


class LabelClass(Section):
    """One class of a schema."""

    name: str = Field(min_length=1, description="the label as the teacher writes it and the tables hold it")
    code: str | None = Field(None, description="the label's short form in published data, e.g. E in ESCI")
    definition: str = Field(min_length=1, description="one sentence, quoted in the prompts")
    gain: float = Field(ge=0.0, le=1.0, description="gain of an item of this class; the score is the expected gain")


class LabelSchema(Section):
    """A closed set of classes. Class index = position in `classes` everywhere (logits, probabilities, matrices)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ignored_types=(cached_property,))
    name: str = Field(description="name of the schema")
    classes: tuple[LabelClass, ...] = Field(min_length=2, strict=False, description="classes, best first where ordered")
    tier_thresholds: tuple[float, float, float, float] = Field(
        strict=False, description="ascending scores at which tiers 1, 2, 3 and 4 begin; tiers 0 and 1 are filtered"
    )

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[LabelClass, ...]) -> tuple[LabelClass, ...]:
        names = [word.casefold() for item in classes for word in {item.name, item.code or item.name}]
        if len(set(names)) != len(names):
            raise ValueError("two classes share a name or code (compared without case)")
        return classes

    @field_validator("tier_thresholds")
    @classmethod
    def _ascending(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        if sorted(set(thresholds)) != list(thresholds):
            raise ValueError("tier thresholds must ascend strictly")
        return thresholds

    @classmethod
    def load(cls, name_or_path: str) -> Self:
        """Load a shipped schema by name (`esci`, `marketplace6`, `graded3`) or a user's YAML file by path."""
        shipped = SCHEMA_DIR / f"{name_or_path}.yaml"
        path = shipped if shipped.exists() else Path(name_or_path)
        if not path.exists():
            names = ", ".join(sorted(file.stem for file in SCHEMA_DIR.glob("*.yaml")))
            raise ConfigError(f"label schema {name_or_path!r}: neither a shipped schema ({names}) nor a YAML file")
        try:
            return cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise ConfigError(f"{path}: not a label schema: {error}") from None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Class names in index order."""
        return tuple(item.name for item in self.classes)

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """Gains in index order."""
        return tuple(item.gain for item in self.classes)

    def refuse_outside(self, labels: Iterable[str], place: str) -> None:
        """Raise InputError naming `place` when a table's gold labels are not all class names of this schema."""
        outside = sorted(set(labels) - set(self.names))
        if outside:
            raise InputError(
                f"{place}: gold label(s) {', '.join(map(repr, outside[:5]))} outside the label schema {self.name} "
                f"({', '.join(self.names)}); name the schema that the pairs were prepared with"
            )

    @cached_property
    def _index(self) -> dict[str, int]:
        pairs = [
            (word.casefold(), i) for i, item in enumerate(self.classes) for word in {item.name, item.code or item.name}
        ]
        return dict(pairs)

    def canonical(self, label: str) -> str | None:
        """The class name that a written label means (name or code, any case), or None when it is outside the schema."""
        position = self._index.get(label.strip().casefold())
        return None if position is None else self.names[position]

    def index(self, name: str) -> int:
        """Index of a class name; KeyError when it is outside the schema."""
        return self._index[name.casefold()]

    def tier(self, score: float) -> int:
        """Tier 0-4 of a score in [0, 1]."""
        return sum(score >= threshold for threshold in self.tier_thresholds)
