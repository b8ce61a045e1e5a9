import subprocess
import sys

import pytest

from jobs.dapt import DaptConfig
from jobs.dpo import DpoConfig
from jobs.dpo import run as run_dpo
from jobs.sft import SftConfig
from jobs.sft import run as run_sft
from raylib import tables
from raylib.errors import ConfigError, InputError

SFT = {"output": "out", "sft": "in", "model": "embedded"}


def test_batch_that_no_accumulation_reaches_is_refused():
    with pytest.raises(ConfigError, match="global_batch 32 is no multiple of micro_batch 5 x num_workers 2"):
        SftConfig.from_mapping({**SFT, "workers": {"num_workers": 2, "micro_batch": 5}}, "test")


def test_published_defaults():
    sft = SftConfig.from_mapping(SFT, "test")
    assert (sft.num_epochs, sft.global_batch, sft.max_length, sft.learning_rate) == (3.0, 32, 3072, 5e-5)
    dpo = DpoConfig.from_mapping({"output": "o", "preferences": "p", "model": "m", "adapter": "a"}, "test")
    assert (dpo.beta, dpo.num_epochs, dpo.global_batch, dpo.learning_rate, dpo.warmup_ratio) == (
        0.1,
        3.0,
        64,
        5e-6,
        0.1,
    )


@pytest.mark.parametrize("start", [{}, {"model": "embedded", "scratch": {}}])
def test_dapt_starts_from_exactly_one_model(start):
    with pytest.raises(ConfigError, match="exactly one of model and scratch"):
        DaptConfig.from_mapping({"output": "o", "corpus": "c", **start}, "test")


def test_no_model_at_the_path(tmp_path):
    config = SftConfig(output=str(tmp_path / "out"), sft=str(tmp_path), model=str(tmp_path / "absent"))
    with pytest.raises(InputError, match="no model at"):
        run_sft(config)


def test_empty_table_is_refused(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    tables.write_parquet(f"{tmp_path}/table/part.parquet", tables.SFT, [])
    config = SftConfig(output=str(tmp_path / "out"), sft=str(tmp_path / "table"), model=str(tmp_path / "model"))
    with pytest.raises(InputError, match="the table is empty"):
        run_sft(config)


def test_dpo_without_adapter_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    config = DpoConfig(
        output=str(tmp_path / "out"), preferences=str(tmp_path), model=str(tmp_path / "model"), adapter=str(tmp_path)
    )
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        run_dpo(config)


def test_importing_the_jobs_imports_no_heavy_library():
    code = "import sys, jobs.dapt, jobs.sft, jobs.dpo; print({'torch', 'ray', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
