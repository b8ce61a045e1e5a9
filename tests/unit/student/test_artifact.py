import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from raylib.errors import InputError
from raylib.student.artifact import add_text, complete, load_student, save_student
from raylib.student.model import Student

INPUTS = {"input_ids": torch.tensor([[2, 5, 3, 6, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}


@pytest.fixture(params=["none", "mlp", "poly", "gat"])
def saved(request, make_student, tokenizer, tmp_path):
    student = make_student(request.param, embedding_size=5).eval()
    save_student(student, tokenizer, tmp_path / "model")
    return student, tmp_path / "model"


def test_comes_back_with_the_same_answers_and_no_projection(saved):
    student, path = saved
    loaded, tokenizer = load_student(path)
    assert loaded.spec == student.spec
    assert loaded.objective is None
    assert torch.equal(loaded(**INPUTS).logits_BC, student(**INPUTS).logits_BC)
    assert tokenizer("red", "shoe")["input_ids"] == [2, 4, 3, 7, 3]


def test_holds_no_pickle(saved):
    names = {file.name for file in saved[1].iterdir()}
    assert names == {"student.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def path(make_student, tokenizer, tmp_path):
    save_student(make_student(), tokenizer, tmp_path / "model")
    return tmp_path / "model"


def edit_record(path, **changes):
    record = json.loads((path / "student.json").read_text()) | changes
    (path / "student.json").write_text(json.dumps(record))


def test_newer_format_is_refused(path):
    edit_record(path, format_version=3)
    with pytest.raises(InputError, match="artifact format 3, this version reads up to 2; update tricot"):
        load_student(path)


def test_an_older_format_has_no_temperature_and_loads(path):
    record = json.loads((path / "student.json").read_text())
    del record["temperature"]
    (path / "student.json").write_text(json.dumps(record | {"format_version": 1}))
    assert load_student(path)[0].spec.temperature == 1.0


def test_what_is_found_out_later_is_added(path):
    student = load_student(path)[0]
    student.spec = student.spec.model_copy(update={"temperature": 1.7})
    complete(student, path, None)
    add_text(path, "README.md", "# card\n")
    assert load_student(path)[0].spec == student.spec
    assert (path / "README.md").read_text() == "# card\n"
    assert not list(path.glob("_partial*"))


def test_missing_and_misshapen_tensors_are_named(path):
    weights = load_file(path / "model.safetensors")
    del weights["extractor.to_R"]
    weights["head.bias"] = torch.zeros(7)
    save_file(weights, path / "model.safetensors")
    with pytest.raises(InputError, match=r"2 wrong tensor.*missing extractor.to_R, head.bias is \(7,\), not \(3,\)"):
        load_student(path)


def test_truncated_weights_are_named(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model.safetensors: not readable"):
        load_student(path)


def test_damaged_record_is_named(path):
    (path / "student.json").write_text("{")
    with pytest.raises(InputError, match=r"student.json: damaged"):
        load_student(path)
    (path / "student.json").write_text('{"format_version": 1}')
    with pytest.raises(InputError, match=r"not a student of format 1"):
        load_student(path)


def test_no_artifact_says_what_to_name(tmp_path):
    with pytest.raises(InputError, match=r"no student here .* `model` folder of a distill run"):
        load_student(tmp_path)


def test_saving_again_replaces_the_older_student(path, make_student, tokenizer):
    other = make_student(seed=5)
    other.save_pretrained(path, tokenizer)
    assert torch.equal(Student.from_pretrained(path).head.weight, other.head.weight)
