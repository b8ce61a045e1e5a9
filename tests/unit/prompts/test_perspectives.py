from pathlib import Path

import pytest
import yaml

from raylib.errors import ConfigError
from raylib.labels import LabelSchema
from raylib.prompts import PERSPECTIVES, UNIFIED, load_perspective, parse_answer, perspectives
from raylib.prompts.perspectives import PERSPECTIVE_DIR

SCHEMAS = ("marketplace6", "esci", "graded3")
SHIPPED = (*PERSPECTIVES, UNIFIED)
PAIR = {"query": "red tent", "locale": "en", "title": "Tent red 2 kg"}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("schema_name", SCHEMAS)
def test_shipped_few_shots_keep_their_own_contract(name: str, schema_name: str) -> None:
    schema = LabelSchema.load(schema_name)
    perspective = load_perspective(name)
    perspective.check(schema, 3)
    for examples in perspective.few_shots[schema_name].values():
        assert len({example.label for example in examples[:3]}) > 1
        assert all(24 <= len(example.rationale.split()) <= 45 for example in examples)
    answers = [m["content"] for m in perspective.messages(schema, PAIR, 3) if m["role"] == "assistant"]
    assert len(answers) == 3
    assert all(parse_answer(answer, "stop", schema)[1] for answer in answers)


def test_the_system_message_names_every_class_and_only_the_last_message_depends_on_the_pair() -> None:
    schema = LabelSchema.load("marketplace6")
    perspective = load_perspective("user_intent")
    one = perspective.messages(schema, PAIR, 2)
    other = perspective.messages(schema, {**PAIR, "title": "Chair"}, 2)
    assert [message["role"] for message in one] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert one[:-1] == other[:-1]
    assert all(f"- {name}: " in one[0]["content"] for name in schema.names)


def test_the_unified_prompt_names_no_perspective() -> None:
    text = (PERSPECTIVE_DIR / "unified.yaml").read_text(encoding="utf-8").split("instruction:")[1].split("few_shots")[0]
    assert not any(word in text for word in ("shopper", "annotator", "platform", "rules", "perspective"))


@pytest.mark.parametrize(
    ("locale", "schema", "expected"),
    [("es", "esci", "es"), ("jp", "esci", "ja"), ("us", "esci", "en"), ("ko", "esci", "en"), ("es", "graded3", "en")],
)
def test_examples_come_in_the_locale_or_in_english(locale: str, schema: str, expected: str) -> None:
    examples = load_perspective("business_rule").examples(LabelSchema.load(schema), locale, 2)
    assert [example.pair.locale for example in examples] == [expected, expected]


def test_a_locale_with_too_few_examples_falls_back(tmp_path: Path) -> None:
    values = yaml.safe_load((PERSPECTIVE_DIR / "user_intent.yaml").read_text(encoding="utf-8"))
    values["few_shots"]["esci"]["es"] = values["few_shots"]["esci"]["es"][:1]
    perspective = load_perspective(_written(tmp_path, values))
    schema = LabelSchema.load("esci")
    assert perspective.examples(schema, "es", 1)[0].pair.locale == "es"
    assert perspective.examples(schema, "es", 2)[0].pair.locale == "en"


def test_the_hash_follows_the_text(tmp_path: Path) -> None:
    values = yaml.safe_load((PERSPECTIVE_DIR / "user_intent.yaml").read_text(encoding="utf-8"))
    shipped = load_perspective("user_intent")
    assert load_perspective(_written(tmp_path, values)).hash == shipped.hash
    values["few_shots"]["graded3"]["en"][0]["rationale"] += " indeed"
    assert load_perspective(_written(tmp_path, values)).hash != shipped.hash


def test_wrong_files_are_told(tmp_path: Path) -> None:
    values = yaml.safe_load((PERSPECTIVE_DIR / "user_intent.yaml").read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match="neither a shipped one"):
        load_perspective("shopper")
    with pytest.raises(ConfigError, match="instructions"):
        load_perspective(_written(tmp_path, {**values, "instructions": "x"}))
    with pytest.raises(ConfigError, match="lower num_few_shots"):
        load_perspective("user_intent").check(LabelSchema.load("graded3"), 9)
    values["few_shots"]["graded3"]["en"][0]["label"] = "Perfect"
    with pytest.raises(ConfigError, match="Perfect"):
        load_perspective(_written(tmp_path, values)).check(LabelSchema.load("graded3"), 1)


def _written(tmp_path: Path, values: object) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return str(path)


def test_the_hash_follows_how_the_code_lays_out_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_perspective("user_intent").hash
    monkeypatch.setattr(perspectives, "format_pair", lambda pair: f"title: {pair['title']}")
    assert load_perspective("user_intent").hash != shipped
