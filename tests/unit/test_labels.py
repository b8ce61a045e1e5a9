from pathlib import Path
from typing import Any

import pytest
import yaml

from raylib.errors import ConfigError
from raylib.labels import LabelSchema

SCHEMA: dict[str, Any] = {
    "name": "two",
    "classes": [
        {"name": "Good", "code": "G", "definition": "fits", "gain": 1.0},
        {"name": "Bad", "code": "B", "definition": "does not fit", "gain": 0.0},
    ],
    "tier_thresholds": [0.1, 0.3, 0.6, 0.9],
}


def written(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "schema.yaml"
    path.write_text(yaml.safe_dump(SCHEMA | changes))
    return str(path)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("esci", ("Exact", "Substitute", "Complement", "Irrelevant")),
        ("graded3", ("Exact", "Partial", "Irrelevant")),
    ],
)
def test_shipped_classes_stand_in_the_order_of_their_gains(name: str, classes: tuple[str, ...]) -> None:
    schema = LabelSchema.load(name)
    assert schema.names == classes
    assert list(schema.gains) == sorted(schema.gains, reverse=True)


def test_marketplace6_has_the_published_classes() -> None:
    mismatches = {f"{kind} Mismatch" for kind in ("Brand", "Category", "Model", "Attribute", "Accessory")}
    assert set(LabelSchema.load("marketplace6").names) == {"Strongly Relevant"} | mismatches


def test_esci_gains_are_the_data_sets_own() -> None:
    assert LabelSchema.load("esci").gains == (1.0, 0.1, 0.01, 0.0)


@pytest.mark.parametrize("label", ["E", "e", "Exact", " exact\n", "EXACT"])
def test_a_label_may_be_written_as_name_or_code_in_any_case(label: str) -> None:
    schema = LabelSchema.load("esci")
    assert schema.canonical(label) == "Exact"
    assert schema.index("Exact") == 0


@pytest.mark.parametrize("label", ["", "Exactly", "E.", "X", "Exact Substitute"])
def test_any_other_text_is_outside_the_schema(label: str) -> None:
    assert LabelSchema.load("esci").canonical(label) is None


@pytest.mark.parametrize(("score", "tier"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.3, 2), (0.6, 3), (0.9, 4), (1.0, 4)])
def test_tiers_begin_at_their_thresholds(tmp_path: Path, score: float, tier: int) -> None:
    assert LabelSchema.load(written(tmp_path)).tier(score) == tier


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tier_thresholds": [0.3, 0.1, 0.6, 0.9]}, "ascend"),
        ({"tier_thresholds": [0.1, 0.3, 0.6]}, "tier_thresholds"),
        ({"classes": SCHEMA["classes"][:1]}, "classes"),
        ({"classes": [*SCHEMA["classes"], {"name": "good", "definition": "x", "gain": 0.5}]}, "share a name or code"),
        ({"classes": [*SCHEMA["classes"], {"name": "b", "definition": "x", "gain": 0.5}]}, "share a name or code"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_schemas_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        LabelSchema.load(written(tmp_path, **changes))


def test_an_unknown_schema_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="esci, graded3, marketplace6, matching"):
        LabelSchema.load("ecsi")
