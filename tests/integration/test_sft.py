import json
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file
from teacher_cases import golden, losses, make_base, write_sft
from worker_killer import WorkerKiller

from jobs.sft import SftConfig, run
from raylib import tables
from raylib.errors import InputError, TrainingError
from raylib.ray_deepspeed import Workers
from raylib.ray_session import ray_session
from raylib.teacher.encoding import load_tokenizer, num_answer_tokens, sft_example
from raylib.teacher.preflight import preflight

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


def test_killed_worker_is_replaced_and_nothing_changes(case, two_workers):
    killer = WorkerKiller(case["path"] / "replaced" / "training")
    killer.start()
    metrics = train(case, "replaced", WORKERS)
    assert killer.killed
    assert metrics["resumed_at_step"] in range(4, 30, 4)
    assert metrics["num_steps"] == 30
    np.testing.assert_allclose(losses(metrics), losses(two_workers), rtol=1e-5)
    for name, weights in adapter(case, "replaced").items():
        np.testing.assert_array_equal(weights, adapter(case, "two")[name])


def test_two_workers_of_zero_3_equal_zero_2_whichever_are_killed_and_however_many_go_on(case, two_workers):
    """The first lost worker is replaced, the second ends the run, and one worker does the rest."""
    killer = WorkerKiller(case["path"] / "killed" / "training", times=2)
    killer.start()
    with pytest.raises(TrainingError, match=r"lost workers more often .*the last checkpoint is kept"):
        train(case, "killed", {**WORKERS, "zero_stage": 3, "max_failures": 1})
    assert len(killer.killed) == 2
    metrics = train(case, "killed", {"num_workers": 1, "micro_batch": 4, "checkpoint_steps": 100, "zero_stage": 3})
    assert metrics["resumed_at_step"] in range(8, 30, 4)
    assert metrics["num_steps"] == 30
    check_equal(case, metrics, "killed", two_workers)


def test_one_worker_equals_two_also_when_its_disk_was_full_at_a_checkpoint(case, two_workers):
    # and no accumulation equals two micro-batches
    disk = case["path"] / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    is_small = not subprocess.run(mount, capture_output=True).returncode  # it needs root
    workers = {"num_workers": 1, "micro_batch": 8, "checkpoint_steps": 10, "max_failures": 0}
    try:
        if is_small:
            with pytest.raises(TrainingError, match=r"rank 0: .*[Nn]o space left.*Mend the cause \(free space"):
                train(case, "disk/run", workers)
            assert not (disk / "run" / "adapter").exists()
            assert not (disk / "run" / "_SUCCESS").exists()
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        check_equal(case, train(case, "disk/run", workers), "disk/run", two_workers)
    finally:
        if is_small:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def check_equal(case, metrics, name, expected):
    np.testing.assert_allclose(losses(metrics), losses(expected), rtol=1e-4)
    for weight, value in adapter(case, name).items():
        np.testing.assert_allclose(value, adapter(case, "two")[weight], atol=2e-4)


def test_a_loss_that_is_no_number_ends_training_and_keeps_what_was_good(case):
    workers = {"num_workers": 1, "micro_batch": 8, "checkpoint_steps": 1}
    with pytest.raises(TrainingError, match=r"training stopped at step \d+ .*lower learning_rate \(now 1e\+30\)"):
        train(case, "diverged", workers, learning_rate=1e30, warmup_ratio=0.5)
    assert not (case["path"] / "diverged" / "adapter").exists()
    assert not (case["path"] / "diverged" / "_SUCCESS").exists()


def test_a_curriculum_begins_with_the_shortest_answers(case):
    import torch
    from transformers import AutoModelForCausalLM

    workers = {"num_workers": 1, "micro_batch": 8, "checkpoint_steps": 100}
    metrics = train(case, "curriculum", workers, order="short_to_long", num_epochs=1.0)
    tokenizer, model = load_tokenizer(case["model"]), AutoModelForCausalLM.from_pretrained(case["model"])
    rows = tables.read_table(case["sft"], tables.SFT).to_pylist()
    examples = sorted((sft_example(tokenizer, row["prompt"], row["completion"]) for row in rows), key=num_answer_tokens)
    summed = counted = 0.0
    with torch.no_grad():
        for example in examples[:8]:
            ids, labels = (torch.tensor([example[name]]) for name in ("input_ids", "labels"))
            summed += model(input_ids=ids, labels=labels).loss.item() * num_answer_tokens(example)
            counted += num_answer_tokens(example)
    assert losses(metrics)[0] == pytest.approx(summed / counted, rel=1e-4)
    assert list((case["path"] / "curriculum" / "tensorboard").glob("events.*"))


@pytest.mark.usefixtures("two_workers")
def test_preflight_counts_the_model_and_names_a_rank_that_does_not_see_it(case, tmp_path):
    lora = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
    found = preflight(Workers(num_workers=2), case["model"], lora, 1)
    weights = sum(value.size for value in adapter(case, "two").values())
    assert found.num_trained == weights
    assert found.num_parameters > weights
    with pytest.raises(InputError, match=r"rank 1 on [\d.]+ does not see .*/nowhere: put the model on a path"):
        preflight(Workers(num_workers=2), str(tmp_path / "nowhere"), lora, 1)
