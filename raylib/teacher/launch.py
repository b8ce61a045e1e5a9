"""The driver's side of training: start the workers, read what they left, tidy up."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylib.errors import InputError
from raylib.ray_deepspeed import Workers, fit
from raylib.ray_session import ray_session

CURVE_POINTS = 200


def launch(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    workers: Workers,
    storage: Path,
    counts: dict[str, int],
) -> dict[str, Any]:
    """Train to the end and return the facts for the run's metrics; the checkpoints are deleted afterwards.

    `counts` are those of `write_examples`. `loss_curve` holds [step, mean loss since the point before].
    """
    if not counts["num_examples"]:
        raise InputError(
            f"{storage.parent}: no row is left to train on; rejected/ there has the reasons (max_length too small?)"
        )
    with ray_session():
        fit(loop, {**settings, "storage": str(storage)}, workers, storage)
    history = json.loads((storage / "history.json").read_text())
    shutil.rmtree(storage)
    losses = history["losses"]
    steps_here = history["num_steps"] - history["resumed_at_step"]
    tokens = counts["num_tokens"] * settings["num_epochs"]
    return {
        **counts,
        "num_steps": history["num_steps"],
        "num_tokens_trained": round(tokens),
        "tokens_per_s": round(tokens * steps_here / history["num_steps"] / history["train_s"], 1),
        "train_s": round(history["train_s"], 3),
        "resumed_at_step": history["resumed_at_step"],
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "loss_curve": loss_curve(losses),
    }


def loss_curve(losses: list[float], num_points: int = CURVE_POINTS) -> list[tuple[int, float]]:
    """At most `num_points` of (step, mean loss of the steps since the last point); steps count from 1."""
    stride = -(-len(losses) // num_points)
    chunks = [losses[start : start + stride] for start in range(0, len(losses), stride)]
    ends = [min(start + stride, len(losses)) for start in range(0, len(losses), stride)]
    return [(end, sum(chunk) / len(chunk)) for end, chunk in zip(ends, chunks, strict=True)]
