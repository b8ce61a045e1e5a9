"""The driver's side of training: start the workers, read what they left, tidy up."""

import json
import shutil
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import ray

from raylib.errors import ConfigError, InputError, TrainingError
from raylib.ray_deepspeed import Workers, fit
from raylib.ray_session import ray_session
from raylib.teacher.preflight import preflight

CURVE_POINTS = 200
FAILURE = "failure.json"  # of StopWhenNotFinite, whose file cannot be imported without torch


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
    if "mlflow" in settings["trackers"] and util.find_spec("mlflow") is None:
        raise ConfigError("trackers: mlflow is not installed; pip install mlflow here and on the workers")
    failure = storage / FAILURE
    failure.unlink(missing_ok=True)
    with ray_session():
        if settings["model"] and (workers.use_gpu or len(ray.nodes()) > 1):
            preflight(workers, settings["model"], settings.get("lora"), settings.get("num_adapters", 1))
        places = {"storage": str(storage), "tensorboard": str(storage.parent / "tensorboard")}
        fit(loop, {**settings, **places}, workers, storage)
    if failure.exists():
        raise TrainingError(_what_failed(json.loads(failure.read_text()), storage, settings["learning_rate"]))
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


def _last_checkpoint(storage: Path) -> str:
    steps = [int(file.read_text()) for file in storage.glob("ray/checkpoint_*/step")]
    return f"the checkpoint of step {max(steps)} is kept in {storage}/ray" if steps else "no checkpoint was reached"


def _what_failed(failure: dict[str, Any], storage: Path, learning_rate: float) -> str:
    losses = ", ".join(f"{loss:.4g}" for loss in failure["losses"])
    return (
        f"{storage.parent}: training stopped at step {failure['step']} (epoch {failure['epoch']:.2f}): "
        f"{failure['what']}; last losses {losses}; {_last_checkpoint(storage)}, nothing else was written. Look at the "
        f"rows and lower learning_rate (now {learning_rate:g}); another setting needs another output directory"
    )


def loss_curve(losses: list[float], num_points: int = CURVE_POINTS) -> list[tuple[int, float]]:
    """At most `num_points` of (step, mean loss of the steps since the last point); steps count from 1."""
    stride = -(-len(losses) // num_points)
    chunks = [losses[start : start + stride] for start in range(0, len(losses), stride)]
    ends = [min(start + stride, len(losses)) for start in range(0, len(losses), stride)]
    return [(end, sum(chunk) / len(chunk)) for end, chunk in zip(ends, chunks, strict=True)]
