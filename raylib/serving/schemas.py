"""What clients send and get: typed, bounded, and every refusal with a machine-readable reason."""

from typing import Annotated, Any

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
Locale = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}([-_][A-Za-z0-9]{2,8})?$")]


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
    locale: Locale = Field(description="e.g. en or pt-BR; business rules may name it")
    items: list[Item] = Field(min_length=1)
    user_id: Identifier | None = Field(None, description="decides the arm of an experiment, the same one each time")
    model: Identifier | None = Field(None, description="one of /v1/model's `models`; null: by the user's arm")
    explain: bool = Field(False, description="also tell what the business rules did")
    latent: bool = Field(False, description="also give the student's latent vector of each item")


class AppliedRule(_Message):
    """One business rule that applied to an item."""

    rule: str
    score: float = Field(description="after it")
    tier: int = Field(description="after it")


class Explanation(_Message):
    """How an item's score and tier came about."""

    score: float = Field(description="the student's, before the business rules")
    tier: int = Field(description="the student's, before the business rules")
    rules: list[AppliedRule] = Field(description="those that applied, in order")


class ItemScore(_Message):
    """The student's answer for one item."""

    item_id: str
    probs: dict[str, float] = Field(description="probability by class name")
    label: str = Field(description="most probable class")
    score: float = Field(description="expected gain under the class probabilities, 0 to 1, after the business rules")
    tier: int = Field(description="0 to 4, from the student's thresholds, after the business rules")
    filtered: bool = Field(description="tiers 0 and 1 are filtered before ranking")
    explanation: Explanation | None = Field(None, description="where it was asked for")
    latent: list[float] | None = Field(None, description="where it was asked for")


class ScoreResponse(_Message):
    """Answers in the order of the request's items."""

    model: str = Field(description="name of the student that answered")
    fingerprint: str = Field(description="of the student that answered")
    arm: str | None = Field(description="the user's arm of the experiment; null without one")
    items: list[ItemScore]


class ModelResponse(_Message):
    """What is being served; of the main student where there are several."""

    fingerprint: str
    label_schema: str
    classes: list[str]
    gains: list[float]
    tier_thresholds: list[float]
    temperature: float = Field(description="of the softmax over classes, fitted on dev")
    extractor: str
    item_fields: list[str]
    max_length: int
    max_items: int
    dtype: str
    models: dict[str, str] = Field(description="fingerprint by name: main, arms with a student of their own, shadow")
    experiment: dict[str, Any] | None = Field(description="its name and the arms' shares")
    rules: list[str] = Field(description="business rules, in the order in which they apply")
    parity: dict[str, Any] | None = Field(description="what the gate before the first request measured")
    load_error: str | None = Field(description="why the students last asked for were not taken; null: they were")


class Problem(_Message):
    """One wrong field of a request."""

    field: str
    message: str


class ErrorResponse(_Message):
    """A refusal. `reason` is stable and meant for programs: body_too_large, too_many_items, invalid_request, ..."""

    reason: str
    message: str
    problems: list[Problem] = []
