from collections.abc import Callable
from typing import Any

import pytest

from raylib.planning.hardware import Hardware
from raylib.planning.inference import Replica, generation_s, size_replica
from raylib.planning.model_shape import ModelShape, load_shape

H100 = Hardware(8, 80e9, 400e12, 2e12, None)
L4 = Hardware(8, 24e9, 48e12, 180e9, None)
WEIGHTS = 2 * 14_768_307_200


@pytest.fixture
def shape(write_model: Callable[..., str]) -> ModelShape:
    return load_shape(write_model())


def replica(shape: ModelShape, hardware: Hardware = H100, **changes: Any) -> Replica:
    settings: dict[str, Any] = {
        "num_gpus": 1.0,
        "tensor_parallel_size": 1,
        "number_bytes": 2,
        "sequence_tokens": 1000.0,
        "max_num_seqs": 256,
        "kv_cache_memory_bytes": None,
    }
    return size_replica(shape, hardware, **{**settings, **changes})


def test_qwen3_14b_on_one_h100(shape: ModelShape):
    found = replica(shape)
    assert found.weight_bytes == WEIGHTS
    assert found.kv_token_bytes == 163_840
    assert found.kv_cache_bytes == int(0.92 * 80e9 - 2 * 2**30 - WEIGHTS)
    assert found.max_sequences == int((0.92 * 80e9 - 2 * 2**30 - WEIGHTS) / 163_840_000) == 255
    assert found.num_sequences == 255
    assert replica(shape, max_num_seqs=64).num_sequences == 64


def test_a_model_that_does_not_fit_one_gpu_fits_two(shape: ModelShape):
    assert not replica(shape, L4).fits
    two = replica(shape, L4, num_gpus=2.0, tensor_parallel_size=2)
    assert two.kv_cache_bytes == int(2 * (0.92 * 24e9 - 2 * 2**30) - WEIGHTS)
    assert two.num_sequences == int(two.kv_cache_bytes / 163_840_000) == 63
    assert two.num_gpus == 2.0


def test_a_given_kv_cache_is_taken_where_it_fits(shape: ModelShape):
    assert replica(shape, kv_cache_memory_bytes=10 << 30).kv_cache_bytes == 10 << 30
    assert not replica(shape, kv_cache_memory_bytes=60_000_000_000).fits
    on_cpu = replica(shape, num_gpus=0.0)
    assert on_cpu.kv_cache_bytes == 512 << 20
    assert on_cpu.num_gpus == 0


def test_seconds_follow_the_slower_of_memory_and_arithmetic(shape: ModelShape):
    engine = replica(shape, max_num_seqs=100)
    multiplied = 14_768_307_200 - 151936 * 5120
    seconds = generation_s(shape, engine, H100, uncached_tokens=1e6, output_tokens=1e6, context_tokens=500.0)
    # decoding reads weights and 100 x 500 tokens of cache in every one of 10,000 steps
    read = WEIGHTS + 100 * 500 * 163_840
    assert seconds == pytest.approx(2 * multiplied * 1e6 / 400e12 + 10_000 * read / 2e12)
    slow = H100._replace(flops_per_s=1e12)
    seconds = generation_s(shape, engine, slow, uncached_tokens=0, output_tokens=1e6, context_tokens=500.0)
    assert seconds == pytest.approx(2 * multiplied * 1e6 / 1e12)
    two = replica(shape, max_num_seqs=100, num_gpus=2.0, tensor_parallel_size=2)
    faster = generation_s(shape, two, slow, uncached_tokens=0, output_tokens=1e6, context_tokens=500.0)
    assert faster == pytest.approx(seconds / 2)
