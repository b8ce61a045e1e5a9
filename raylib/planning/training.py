"""Steps, FLOPs and memory of training: the teacher's (all weights or LoRA) and the student's."""

import math
from typing import NamedTuple

from raylib.memory import state_bytes
from raylib.planning.model_shape import ModelShape

ACTIVATION_BYTES = 34  # of a layer, for a token and a hidden unit, in 16 bits (arXiv 2205.05198, eq. 1, without scores)


class Trained(NamedTuple):
    """What is trained, and on how many processes."""

    shape: ModelShape
    lora_rank: int | None  # None = all weights
    number_bytes: int  # of a weight in the forward pass
    num_workers: int
    zero_stage: int
    micro_batch: int  # sequences that one process takes at once
    is_checkpointed: bool  # activations are computed again in the backward pass; on GPUs
    has_vocabulary: bool  # logits over the vocabulary for each token

    @property
    def num_trained(self) -> int:
        """Parameters that change."""
        if self.lora_rank is None:
            return self.shape.num_parameters
        return self.shape.lora_parameters(self.lora_rank)


def num_steps(num_rows: int, num_epochs: float, global_batch: int, num_workers: int, micro_batch: int) -> int:
    """Optimizer steps as transformers counts them: micro-batches are rounded up a process, steps an epoch."""
    micro_batches = math.ceil(math.ceil(num_rows / num_workers) / micro_batch)
    accumulation = max(1, global_batch // (num_workers * micro_batch))
    return math.ceil(num_epochs * max(1, math.ceil(micro_batches / accumulation)))


def flops_per_token(trained: Trained, has_reference: bool = False) -> float:
    """FLOPs of forward and backward for one token (arXiv 2001.08361, section 2.1): 6 N when all weights are trained.

    N parameters that are multiplied: 2 N forward, 2 N for the gradients of the activations, 2 N for those of the
    weights, which frozen weights do not need: LoRA takes 4 N + 6 N_lora. Checkpointed activations take the forward pass
    again, 2 N; DPO's reference policy another one, 2 N. Attention scores are left out: 2 layers x hidden x length a
    token, 1-2 % at these lengths.
    """
    base = trained.shape.num_multiplied
    extra = (2 * base if trained.is_checkpointed else 0) + (2 * base if has_reference else 0)
    if trained.lora_rank is None:
        return 6 * base + extra
    return 4 * base + 6 * trained.num_trained + extra


def memory_bytes(trained: Trained, max_length: int, has_reference: bool = False) -> dict[str, float]:
    """Bytes of one process, by what they hold, at sequences of `max_length`: `state_bytes` and activations."""
    shape, size, trainable = trained.shape, trained.number_bytes, trained.num_trained
    total = shape.num_parameters + (0 if trained.lora_rank is None else trainable * (2 if has_reference else 1))
    tokens = trained.micro_batch * max_length
    layer = tokens * shape.hidden_size * ACTIVATION_BYTES * size / 2
    kept = tokens * shape.hidden_size * size * shape.num_layers
    return {
        **state_bytes(total, trainable, size, trained.num_workers, trained.zero_stage),
        "activations": kept + layer if trained.is_checkpointed else layer * shape.num_layers,
        "logits": tokens * shape.vocab_size * 8.0 if trained.has_vocabulary else 0.0,  # float32, and their gradients
    }
