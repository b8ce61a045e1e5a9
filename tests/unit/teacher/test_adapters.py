import pytest

from raylib.errors import InputError
from raylib.teacher.adapters import check_adapter, write_base


def make_model(path, weights: bytes):
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return str(path)


def make_adapter(path, base: str):
    path.mkdir()
    (path / "adapter_config.json").write_text("{}")
    write_base(path, base)
    return path


def test_adapter_of_another_base_is_refused(tmp_path):
    base, other = make_model(tmp_path / "a", b"1" * 100), make_model(tmp_path / "b", b"2" * 100)
    adapter = make_adapter(tmp_path / "adapter", base)
    with pytest.raises(InputError, match=f"trained on base model {base}, not on {other}"):
        check_adapter(adapter, other)


def test_a_copied_base_is_the_same_base(tmp_path):
    base, copy = make_model(tmp_path / "a", b"1" * 100), make_model(tmp_path / "copy", b"1" * 100)
    check_adapter(make_adapter(tmp_path / "adapter", base), copy)


def test_weights_that_differ_at_the_end_are_other_weights(tmp_path):
    large = b"1" * (5 << 20)
    base, other = make_model(tmp_path / "a", large), make_model(tmp_path / "b", large[:-1] + b"2")
    with pytest.raises(InputError):
        check_adapter(make_adapter(tmp_path / "adapter", base), other)


def test_run_without_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        check_adapter(tmp_path / "adapter", "embedded")
