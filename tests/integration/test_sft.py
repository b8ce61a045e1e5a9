import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from teacher_cases import WorkerKiller, golden, losses, make_base, write_sft

from jobs.sft import SftConfig, run
from raylib.ray_session import ray_session

WORKERS = {"num_workers": 2, "micro_batch": 2, "checkpoint_steps": 4}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    path = tmp_path_factory.mktemp("sft")
    with ray_session(num_cpus=2):
        yield {"path": path, "model": make_base(path / "base"), "sft": write_sft(path / "table", 48)}


def train(case, name, workers, **settings):
    values = {"global_batch": 8, "learning_rate": 1e-2, "num_epochs": 5.0, "max_length": 512, **settings}
    config = SftConfig.from_mapping(
        {"output": str(case["path"] / name), "sft": case["sft"], "model": case["model"], "workers": workers, **values},
        "test",
    )
    return run(config)


@pytest.fixture(scope="module")
def two_workers(case):
    return train(case, "two", WORKERS)


def adapter(case, name):
    return load_file(case["path"] / name / "adapter" / "adapter_model.safetensors")


def test_losses_follow_the_golden_trajectory(two_workers):
    found = losses(two_workers)
    assert len(found) == 30
    np.testing.assert_allclose(found, golden("sft", found), rtol=1e-3)


@pytest.mark.usefixtures("two_workers")
def test_adapter_covers_all_linear_layers_and_only_them(case):
    names = {name.split(".lora_")[0].split(".")[-1] for name in adapter(case, "two")}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    config = json.loads((case["path"] / "two" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (16, 32)
    assert not (case["path"] / "two" / "training").exists()


def test_one_worker_equals_two(case, two_workers):
    # and no accumulation equals two micro-batches
    one = train(case, "one", {"num_workers": 1, "micro_batch": 8, "checkpoint_steps": 100})
    np.testing.assert_allclose(losses(one), losses(two_workers), rtol=1e-4)
    for name, weights in adapter(case, "one").items():
        np.testing.assert_allclose(weights, adapter(case, "two")[name], atol=2e-4)


def test_killed_worker_is_replaced_and_nothing_changes(case, two_workers):
    killer = WorkerKiller(case["path"] / "killed")
    killer.start()
    metrics = train(case, "killed", WORKERS)
    assert killer.killed
    assert metrics["resumed_at_step"] in range(4, 30, 4)
    assert metrics["num_steps"] == 30
    np.testing.assert_allclose(losses(metrics), losses(two_workers), rtol=1e-5)
    for name, weights in adapter(case, "killed").items():
        np.testing.assert_array_equal(weights, adapter(case, "two")[name])
