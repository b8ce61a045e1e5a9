import math

import numpy as np
import pytest
from safetensors.numpy import load_file
from teacher_cases import golden, losses, make_base, write_preferences

from jobs.dpo import DpoConfig, run
from raylib.errors import InputError
from raylib.ray_session import ray_session
from raylib.teacher.adapters import write_base


def random_adapter(model: str, path):
    """An adapter that changes the model from the start, unlike a fresh one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), lora).save_pretrained(path / "adapter")
    write_base(path / "adapter", model)
    return str(path)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    path = tmp_path_factory.mktemp("dpo")
    model = make_base(path / "base")
    with ray_session(num_cpus=2):
        yield {
            "path": path,
            "model": model,
            "adapter": random_adapter(model, path / "sft"),
            "preferences": write_preferences(path / "table", 32),
        }


def train(case, name, zero_stage, **changes):
    workers = {"num_workers": 2, "micro_batch": 4, "zero_stage": zero_stage, "checkpoint_steps": 100}
    inputs = {key: case[key] for key in ("model", "adapter", "preferences")}
    settings = {"global_batch": 8, "learning_rate": 1e-3, "num_epochs": 2.0, "max_length": 512, "workers": workers}
    settings |= changes
    return run(DpoConfig.from_mapping({"output": str(case["path"] / name), **inputs, **settings}, "test"))


@pytest.fixture(scope="module")
def stage_2(case):
    return train(case, "stage2", 2)


def test_reference_is_the_sft_policy(stage_2):
    # were it the bare base, policy and reference would differ before the first update
    assert losses(stage_2)[0] == pytest.approx(math.log(2), abs=1e-6)


def test_losses_follow_the_golden_trajectory(stage_2):
    found = losses(stage_2)
    assert found[-1] < found[0]
    np.testing.assert_allclose(found, golden("dpo", found), rtol=1e-3)


@pytest.mark.usefixtures("stage_2")
def test_one_adapter_is_written_and_it_has_moved(case):
    start = load_file(case["path"] / "sft" / "adapter" / "adapter_model.safetensors")
    trained = load_file(case["path"] / "stage2" / "adapter" / "adapter_model.safetensors")
    assert start.keys() == trained.keys()
    assert all(np.abs(trained[name] - start[name]).max() > 0 for name in start)
    assert not list((case["path"] / "stage2" / "adapter").glob("ref*"))


def test_zero_3_and_a_reference_computed_ahead_change_nothing(case, stage_2):
    ahead = train(case, "ahead", 3, precompute_reference=True)
    np.testing.assert_allclose(losses(ahead), losses(stage_2), rtol=1e-4)


def test_adapter_of_another_base_is_refused(case, tmp_path):
    other = make_base(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text((tmp_path / "base" / "config.json").read_text() + " ")
    with pytest.raises(InputError, match="was trained on base model"):
        train({**case, "path": tmp_path, "model": other}, "out", 2)
