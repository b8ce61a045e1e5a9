"""Memory and time of a replica that generates: weights, KV cache, and a roofline over prefill and decoding."""

from dataclasses import dataclass

from raylib.planning.hardware import Hardware
from raylib.planning.model_shape import ModelShape

MEMORY_SHARE = 0.92  # vLLM 0.29's gpu_memory_utilization
RESERVE_BYTES = 2 << 30  # of each GPU, for activations and CUDA graphs; ours, vLLM measures it when it starts
CPU_KV_CACHE_BYTES = 512 << 20  # what raylib.annotation.engine asks for on a CPU
CPU_BLOCK, GPU_BLOCK = 32, 16  # tokens of a block of KV cache: our setting on a CPU, vLLM's default on CUDA


@dataclass(frozen=True)
class Replica:
    """One engine: `tensor_parallel_size` GPUs, or some cores."""

    num_gpus: float
    weight_bytes: int
    kv_token_bytes: int
    kv_cache_bytes: int  # 0 when the weights leave no room
    num_sequences: int  # answers at the same time; 0 when not even one fits
    max_sequences: int  # the same without the setting max_num_seqs

    @property
    def fits(self) -> bool:
        """True when at least one answer can be generated."""
        return self.num_sequences > 0


def size_replica(
    shape: ModelShape,
    hardware: Hardware,
    *,
    num_gpus: float,
    tensor_parallel_size: int,
    number_bytes: int,
    sequence_tokens: float,
    max_num_seqs: int,
    kv_cache_memory_bytes: int | None,
) -> Replica:
    """Memory of a replica. `sequence_tokens` (prompt and answer) are counted whole: sharing a prefix only helps.

    KV cache = share of the memory that vLLM takes - weights - reserve, over the replica's GPUs, unless
    `kv_cache_memory_bytes` (of each GPU) says how much.
    """
    weights = shape.num_parameters * number_bytes
    if kv_cache_memory_bytes is not None:
        cache = float(kv_cache_memory_bytes * tensor_parallel_size)
    elif num_gpus == 0:
        cache = float(CPU_KV_CACHE_BYTES)
    else:
        cache = (MEMORY_SHARE * hardware.memory_bytes - RESERVE_BYTES) * tensor_parallel_size - weights
    if num_gpus and weights + cache > hardware.memory_bytes * tensor_parallel_size:
        cache = 0.0
    kv_token = shape.kv_bytes(number_bytes)
    most = int(max(cache, 0.0) / (kv_token * sequence_tokens))
    gpus = max(num_gpus, float(tensor_parallel_size)) if num_gpus else 0.0
    return Replica(gpus, weights, kv_token, int(max(cache, 0.0)), min(most, max_num_seqs), most)


def generation_s(
    shape: ModelShape,
    replica: Replica,
    hardware: Hardware,
    *,
    uncached_tokens: float,
    output_tokens: float,
    context_tokens: float,
) -> float:
    """Seconds one replica takes, by the roofline: each part is as fast as arithmetic or memory allows.

    Prefill: 2 N FLOPs for each token that is not cached. Decoding: a step makes one token for each of the running
    answers; it reads all weights and the KV cache of all of them once, and takes 2 N FLOPs a token.
    """
    gpus = max(1.0, replica.num_gpus)
    flops, bandwidth = hardware.flops_per_s * gpus, hardware.bytes_per_s * gpus
    prefill_s = 2 * shape.num_multiplied * uncached_tokens / flops
    read_bytes = replica.weight_bytes + replica.num_sequences * context_tokens * replica.kv_token_bytes
    step_s = max(read_bytes / bandwidth, 2 * shape.num_multiplied * replica.num_sequences / flops)
    return prefill_s + output_tokens / replica.num_sequences * step_s
