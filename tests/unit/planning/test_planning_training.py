from collections.abc import Callable
from typing import Any

import pytest

from raylib.planning.model_shape import ModelShape, load_shape
from raylib.planning.training import Trained, flops_per_token, memory_bytes, num_steps

N = 14_768_307_200
MULTIPLIED = N - 151936 * 5120
ADAPTER = 64_225_280


@pytest.fixture
def shape(write_model: Callable[..., str]) -> ModelShape:
    return load_shape(write_model())


def trained(shape: ModelShape, **changes: Any) -> Trained:
    settings: dict[str, Any] = {
        "lora_rank": None,
        "number_bytes": 2,
        "num_workers": 8,
        "zero_stage": 3,
        "micro_batch": 2,
        "is_checkpointed": True,
        "has_vocabulary": True,
    }
    return Trained(shape, **{**settings, **changes})


@pytest.mark.parametrize(
    ("num_rows", "num_epochs", "global_batch", "num_workers", "micro_batch", "expected"),
    [
        (2021, 2.0, 32, 2, 8, 128),  # counted by a trainer: 1,011 rows a process, 127 micro-batches, 64 steps an epoch
        (426, 1.0, 64, 2, 8, 7),  # likewise
        (1, 3.0, 32, 1, 2, 3),
        (100, 0.5, 10, 1, 10, 5),
    ],
)
def test_steps(num_rows, num_epochs, global_batch, num_workers, micro_batch, expected):
    assert num_steps(num_rows, num_epochs, global_batch, num_workers, micro_batch) == expected


def test_flops_of_a_token(shape: ModelShape):
    assert flops_per_token(trained(shape, is_checkpointed=False)) == 6 * MULTIPLIED
    assert flops_per_token(trained(shape)) == 8 * MULTIPLIED
    adapter = trained(shape, lora_rank=16, is_checkpointed=False)
    assert flops_per_token(adapter) == 4 * MULTIPLIED + 6 * ADAPTER
    assert flops_per_token(adapter, has_reference=True) == 6 * MULTIPLIED + 6 * ADAPTER


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer"), [(0, 1, 1, 1), (1, 1, 1, 8), (2, 1, 8, 8), (3, 8, 8, 8)]
)
def test_zero_shards_one_thing_more_a_stage(
    shape: ModelShape, stage: int, weights: int, gradients: int, optimizer: int
):
    found = memory_bytes(trained(shape, zero_stage=stage), 100)
    assert found["weights"] == 2 * N / weights
    assert found["gradients"] == 2 * N / gradients
    assert found["optimizer"] == 16 * N / optimizer


def test_memory_of_an_adapter_and_of_float32(shape: ModelShape):
    found = memory_bytes(trained(shape, lora_rank=16, zero_stage=2), 100)
    assert found["weights"] == 2 * (N + ADAPTER)
    assert found["gradients"] == 2 * ADAPTER / 8
    with_reference = memory_bytes(trained(shape, lora_rank=16, zero_stage=2), 100, has_reference=True)
    assert with_reference["weights"] == 2 * (N + 2 * ADAPTER)
    full = memory_bytes(trained(shape, number_bytes=4, zero_stage=0), 100)
    assert (full["weights"], full["gradients"], full["optimizer"]) == (4 * N, 4 * N, 8 * N)


def test_activations(shape: ModelShape):
    tokens, layer = 2 * 3072, 2 * 3072 * 5120 * 34
    checkpointed = memory_bytes(trained(shape), 3072)
    assert checkpointed["activations"] == 40 * tokens * 5120 * 2 + layer
    assert checkpointed["logits"] == tokens * 151936 * 8
    whole = memory_bytes(trained(shape, is_checkpointed=False, has_vocabulary=False), 3072)
    assert whole["activations"] == 40 * layer
    assert whole["logits"] == 0
