"""What clients send and get: typed, bounded, and every refusal with a machine-readable reason."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# The student reads at most a few hundred tokens; longer texts only cost time. Body size and items bound a request.
QUERY_CHARS = 1_000
TEXT_CHARS = 10_000
ID_CHARS = 256
MAX_BODY_BYTES = 4 << 20

Query = Annotated[str, StringConstraints(min_length=1, max_length=QUERY_CHARS, pattern=r"\S")]
Title = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_CHARS, pattern=r"\S")]
Text = Annotated[str, StringConstraints(max_length=TEXT_CHARS)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=ID_CHARS)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Item(_Message):
    """One candidate item of a query."""

    item_id: Identifier
    title: Title
    brand: Text | None = None
    category: Text | None = None
    attributes: Text | None = Field(None, description='as sellers write them: "color=red; size=42"')


class ScoreRequest(_Message):
    """A query and the items to score for it; the number of items is bounded by the server's `max_items`."""

    query: Query
    locale: Annotated[str, StringConstraints(min_length=2, max_length=16)]
    items: list[Item] = Field(min_length=1)


class ItemScore(_Message):
    """The student's answer for one item."""

    item_id: str
    probs: dict[str, float] = Field(description="probability by class name")
    label: str = Field(description="most probable class")
    score: float = Field(description="expected gain under the class probabilities, 0 to 1")
    tier: int = Field(description="0 to 4, from the label schema's thresholds")
    filtered: bool = Field(description="tiers 0 and 1 are filtered before ranking")


class ScoreResponse(_Message):
    """Answers in the order of the request's items."""

    fingerprint: str = Field(description="of the student that answered")
    items: list[ItemScore]


class ModelResponse(_Message):
    """What is being served."""

    fingerprint: str
    label_schema: str
    classes: list[str]
    gains: list[float]
    tier_thresholds: list[float]
    extractor: str
    item_fields: list[str]
    max_length: int
    max_items: int


class Problem(_Message):
    """One wrong field of a request."""

    field: str
    message: str


class ErrorResponse(_Message):
    """A refusal. `reason` is stable and meant for programs: body_too_large, too_many_items, invalid_request, ..."""

    reason: str
    message: str
    problems: list[Problem] = []
