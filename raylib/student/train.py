"""The training loop of one epoch; the engine is DeepSpeed's, or a plain torch optimiser behind the same calls."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from raylib.errors import TrainingError
from raylib.student.data import PairTokenizer, epoch_batches
from raylib.student.judged import JudgedPairs
from raylib.student.loss import classification_losses, soft_label_losses, total_loss
from raylib.student.objectives import Crsd
from raylib.student.workers import summed

MAX_GRADIENT_NORM = 1.0
Log = Callable[[str, float, int], Any]  # (figure, value, step), as TensorBoard takes them


def no_log(figure: str, value: float, step: int) -> None:
    """Keep nothing."""


class Engine(Protocol):
    """What the loop needs of a training engine (DeepSpeed's has it)."""

    module: nn.Module
    optimizer: Any

    def __call__(self, **inputs: Any) -> Any:
        """Forward pass."""

    def backward(self, loss: torch.Tensor) -> Any:
        """Accumulate gradients."""

    def step(self) -> Any:
        """Clip, update, clear gradients."""


class TorchEngine:
    """One process with a plain torch optimiser: the reference that the distributed engine must equal."""

    def __init__(self, module: nn.Module, learning_rate: float, weight_decay: float) -> None:
        self.module = module
        self.optimizer = make_optimizer(module, learning_rate, weight_decay)

    def __call__(self, **inputs: Any) -> Any:
        """Forward pass."""
        return self.module(**inputs)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients."""
        loss.backward()

    def step(self) -> None:
        """Clip, update, clear gradients."""
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def make_optimizer(module: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases and norms do not."""
    matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)  # a third of a step of 32 pairs on a CPU otherwise


@dataclass(frozen=True)
class TrainSettings:
    """The objective and the schedule."""

    num_epochs: int
    global_batch: int  # pairs an update, over all workers
    learning_rate: float
    warmup_ratio: float
    seed: int
    weight_decay: float = 0.01
    guidance_weight: float = 0.1
    soft_weight: float = 0.0  # of the teacher's class probabilities, where there are some
    patience: int | None = None  # epochs without a better dev macro-F1 after which training stops
    label_smoothing: float = 0.0  # share of each gold label spread over all classes
    class_weight_C: tuple[float, ...] | None = None


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weight N / (C * count) of each class: all classes weigh the same in total, the mean over pairs is 1.

    `counts` are training pairs by class; none may be 0.
    """
    return tuple(sum(counts) / (len(counts) * count) for count in counts)


def lr_factor(step: int, num_steps: int, warmup_ratio: float) -> float:
    """Linear warm-up to 1 over `warmup_ratio` of the steps, then linear decay to 0 after the last.

    The paper gives no schedule for the student; we take the one of BERT's own fine-tuning.
    """
    num_warmup = math.ceil(num_steps * warmup_ratio)
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    return (num_steps - step) / max(1, num_steps - num_warmup)


def train_epoch(
    engine: Engine,
    data: JudgedPairs,
    tokenizer: PairTokenizer,
    settings: TrainSettings,
    epoch: int,
    rank: int = 0,
    num_workers: int = 1,
    log: Log = no_log,
) -> list[float]:
    """Train one epoch (counted from 0); returns the loss of each update, the mean over all its pairs.

    `log` gets each of them as `loss` with the number of the update. Raises TrainingError on all workers at the first
    loss that is no number.

    Every worker takes each `num_workers`-th pair of every batch and divides by its even share of the batch, so that
    the mean gradient over workers is the gradient of the whole batch even when it does not split evenly. A worker
    without a pair in a small last batch computes one with weight zero, as all must take part in the update.
    """
    device = next(engine.module.parameters()).device
    batches = epoch_batches(data.pairs.lengths_N, settings.global_batch, settings.seed, epoch)
    num_steps = settings.num_epochs * len(batches)
    class_weight_C = None if settings.class_weight_C is None else torch.tensor(settings.class_weight_C, device=device)
    # Dropout must not depend on how many epochs this process has seen: a resumed run repeats the same numbers.
    torch.manual_seed((settings.seed * 10_007 + epoch) * 1_009 + rank)
    engine.module.train()
    with_reasoning = isinstance(engine.module.objective, Crsd)
    trajectory = []
    for number, batch in enumerate(batches):
        for group in engine.optimizer.param_groups:
            group["lr"] = settings.learning_rate * lr_factor(
                epoch * len(batches) + number, num_steps, settings.warmup_ratio
            )
        mine = batch[rank::num_workers]
        rows = mine if len(mine) else batch[:1]
        targets = data.targets(rows, tokenizer, device, with_reasoning)
        output = engine(**tokenizer.collate(data.pairs, rows, device), targets=targets)
        classification_B = classification_losses(
            output.logits_BC, targets.gold_B, class_weight_C, settings.label_smoothing
        )
        if settings.soft_weight:
            soft_B = soft_label_losses(output.logits_BC, targets.teacher_prob_BC)
            classification_B = classification_B + settings.soft_weight * soft_B
        loss = total_loss(classification_B, output.auxiliary_B, settings.guidance_weight, len(batch) / num_workers)
        engine.backward(loss if len(mine) else loss * 0.0)
        engine.step()
        shares = summed(np.array([loss.item() if len(mine) else 0.0]))
        trajectory.append(float(shares[0]) / num_workers)
        update = epoch * len(batches) + number + 1
        log("loss", trajectory[-1], update)
        if not math.isfinite(trajectory[-1]):
            before = ", ".join(f"{value:.4g}" for value in trajectory[-6:-1])
            raise TrainingError(
                f"loss {trajectory[-1]} at update {update} (epoch {epoch + 1}); those before: {before or 'none'}. Look "
                f"at the rows and lower learning_rate (now {settings.learning_rate:g})"
            )
    return trajectory
