"""What the trainers do between steps: hand checkpoints to Ray Train, and stop when training has gone wrong."""

import json
import math
import os
from pathlib import Path
from typing import Any

import ray.train
import torch
from transformers import TrainerCallback

from raylib.teacher.launch import FAILURE
from raylib.teacher.training import WORKERS_FILE


class ReportCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Hands each complete checkpoint to Ray Train, which copies it and names it on a restart."""

    def __init__(self, workers: dict[str, Any]) -> None:
        self.workers = workers

    def on_save(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Called on every rank after its shard is written."""
        directory = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
        is_first = torch.distributed.get_rank() == 0
        if is_first:
            Path(directory, "step").write_text(str(state.global_step))
            Path(directory, WORKERS_FILE).write_text(json.dumps(self.workers))
        torch.distributed.barrier()  # every rank has written its shard
        checkpoint = ray.train.Checkpoint.from_directory(directory) if is_first else None
        ray.train.report({"step": state.global_step}, checkpoint=checkpoint)


class StopWhenNotFinite(TrainerCallback):  # type: ignore[misc]
    """Ends training at the first loss or weight that is not a finite number, before it gets into a checkpoint.

    A weight can go bad a step before the loss shows it, so the weights are looked at before each checkpoint. What
    happened is written to `failure.json`: an error raised here would make Ray Train run into the same step again.
    """

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.has_failed = False

    def on_log(self, _args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Look at the loss of the step, which is the same number on every rank."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            self._stop(state, control, f"the loss is {loss}")

    def on_step_end(self, _args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look at the weights that would be saved."""
        if not control.should_save:
            return
        trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
        is_bad = any(not bool(torch.isfinite(parameter).all()) for parameter in trained)
        found = torch.tensor(float(is_bad), device=next(model.parameters()).device)
        torch.distributed.all_reduce(found)  # with ZeRO-3 each rank sees its shard
        if found.item():
            self._stop(state, control, "a weight is not finite")

    def _stop(self, state: Any, control: Any, what: str) -> None:
        self.has_failed = True
        control.should_save = False
        control.should_training_stop = True
        if state.is_world_process_zero:
            failure = {"what": what, "step": state.global_step, "epoch": state.epoch, "losses": _last_losses(state)}
            (self.storage / FAILURE).write_text(json.dumps(failure))


def _last_losses(state: Any) -> list[float]:
    return [entry["loss"] for entry in state.log_history if "loss" in entry][-5:]
