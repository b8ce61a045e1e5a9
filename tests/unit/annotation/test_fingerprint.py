from pathlib import Path
from typing import Any

import pytest

from jobs.annotate import AnnotateConfig
from raylib.annotation.fingerprint import annotation_facts, check_adapter, check_model, refuse_mixture
from raylib.errors import InputError, RunConflictError
from raylib.labels import LabelSchema
from raylib.prompts import load_perspective
from raylib.runs import Run


def make_model(path: Path, weights: bytes = b"w", template: bool = True) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    if template:
        (path / "chat_template.jinja").write_text("{{ messages }}")
    return path


def facts(model: Path, **changes: Any) -> str:
    values: dict[str, Any] = {
        "model": str(model),
        "adapter": None,
        "schema": LabelSchema.load("esci"),
        "perspectives": [load_perspective("unified")],
        "num_few_shots": 1,
        "sampling": {"temperature": 0.7, "seed": 0},
        "dtype": "auto",
    }
    fingerprint: str = annotation_facts(**{**values, **changes})["fingerprint"]
    return fingerprint


def test_the_fingerprint_follows_what_shapes_answers_and_nothing_else(tmp_path: Path) -> None:
    model, copy = make_model(tmp_path / "a"), make_model(tmp_path / "b")
    assert facts(model) == facts(copy)
    others = {
        facts(make_model(tmp_path / "c", weights=b"v")),
        facts(model, num_few_shots=2),
        facts(model, schema=LabelSchema.load("graded3")),
        facts(model, perspectives=[load_perspective("user_intent")]),
        facts(model, sampling={"temperature": 0.7, "seed": 1}),
        facts(model, dtype="float32"),
        facts(model, adapter=str(copy)),
    }
    assert len(others | {facts(model)}) == 8


def test_a_model_without_weights_or_template_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no chat template"):
        check_model(str(make_model(tmp_path / "a", template=False)))
    model = make_model(tmp_path / "b")
    check_model(str(model))
    (model / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        check_model(str(model))
    with pytest.raises(InputError, match="adapter_config"):
        check_adapter(str(model))


def test_a_context_beyond_the_models_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "a")
    (model / "config.json").write_text('{"max_position_embeddings": 768}')
    check_model(str(model), 768)
    with pytest.raises(InputError, match="takes 768 tokens"):
        check_model(str(model), 1024)


def test_an_unfinished_run_goes_on_only_with_the_same_model_prompts_and_pairs(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    (pairs / "a.parquet").write_bytes(b"1")
    config = AnnotateConfig(output=str(tmp_path / "out"), pairs=str(pairs))
    run = Run(config.output, "annotate", config)
    facts = {"model_hash": "a1", "num_few_shots": 3, "sampling": {"classes": ("a", "b")}, "fingerprint": "f1"}
    refuse_mixture(run, facts, str(pairs))
    run.write_provenance(inputs={"pairs": str(pairs)}, **facts)
    refuse_mixture(run, facts, str(pairs))
    with pytest.raises(RunConflictError, match=r"model_hash: 'a1' there, 'b2' now\)"):
        refuse_mixture(run, {**facts, "model_hash": "b2", "fingerprint": "f2"}, str(pairs))
    (pairs / "a.parquet").write_bytes(b"22")
    with pytest.raises(RunConflictError, match=r"pairs \(.*\) itself"):
        refuse_mixture(run, facts, str(pairs))
