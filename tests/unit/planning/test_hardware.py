from pathlib import Path

import pytest

from raylib.config import read_yaml
from raylib.errors import ConfigError
from raylib.planning.hardware import GPUS_FILE, load_gpu


def test_every_shipped_gpu_is_a_gpu():
    shipped = read_yaml(GPUS_FILE)
    assert {"A100-80GB", "H100-80GB"} <= shipped.keys()
    for name in shipped:
        gpu = load_gpu(name)
        assert f"{gpu.memory_gb}GB" in name
        assert 100 < gpu.tflops / (gpu.bandwidth_gb_s / 1000) < 500  # FLOPs a byte: a slip of 1000 falls out


def test_a_user_names_a_file_and_mistakes_are_told(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("{memory_gb: 64, tflops: 100, bandwidth_gb_s: 1600}")
    assert load_gpu(str(file)).memory_gb == 64
    file.write_text("{memory_gb: 64, tflops: fast}")
    with pytest.raises(ConfigError, match="not a GPU"):
        load_gpu(str(file))
    with pytest.raises(ConfigError, match=r"'H1000': neither a shipped GPU \(A100-40GB, .*\) nor a YAML file"):
        load_gpu("H1000")
