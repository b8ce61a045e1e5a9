"""Ray Train with DeepSpeed ZeRO, on CPU (gloo) and GPU (nccl): the one file that imports deepspeed.

Two users: the teacher's Hugging Face trainers, which take a DeepSpeed config, and the student's plain training loop,
which takes an engine from `initialize`.
"""

import argparse
import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from raylib.config import Section
from raylib.errors import TrainingError

Precision = Literal["float32", "bfloat16"]

# Elements in one communication bucket: DeepSpeed's default of 5e8 reserves gigabytes before the first step.
CPU_BUCKET, GPU_BUCKET = 1_000_000, 50_000_000
GRADIENT_CLIPPING = 1.0  # norm of all gradients together
UNIVERSAL = {"checkpoint": {"load_universal": True}}


class Workers(Section):
    """How a training job is spread over the cluster."""

    num_workers: int = Field(1, ge=1, description="training processes; one per GPU, or one per few cores")
    use_gpu: bool = Field(False, description="train on GPUs with nccl; false: on CPUs with gloo")
    cpus_per_worker: int = Field(1, ge=1, description="cores (and threads) of one process")
    micro_batch: int = Field(2, ge=1, description="rows one process takes at once; divides the global batch")
    zero_stage: int = Field(2, ge=0, le=3, description="DeepSpeed ZeRO: 0 none, 1 optimizer, 2 gradients, 3 weights")
    precision: Precision = Field("float32", description="weights and activations; bfloat16 keeps float32 masters")
    checkpoint_steps: int = Field(100, ge=1, description="optimizer steps between checkpoints")
    max_failures: int = Field(3, ge=0, description="how often a lost worker is replaced before the job fails")

    def accumulation(self, global_batch: int) -> int:
        """Micro-batches before an optimizer step; ValueError when the global batch is no multiple."""
        at_once = self.micro_batch * self.num_workers
        if global_batch % at_once:
            raise ValueError(
                f"global_batch {global_batch} is no multiple of micro_batch {self.micro_batch} x num_workers "
                f"{self.num_workers}"
            )
        return global_batch // at_once


def worker_env(workers: Workers) -> dict[str, str]:
    """Environment of the training processes, to be set before torch and deepspeed are imported there."""
    threads = {"OMP_NUM_THREADS": str(workers.cpus_per_worker), "TOKENIZERS_PARALLELISM": "false"}
    return threads if workers.use_gpu else {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", **threads}


def zero_config(workers: Workers) -> dict[str, Any]:
    """The part of a DeepSpeed config that does not depend on who calls."""
    bucket = GPU_BUCKET if workers.use_gpu else CPU_BUCKET
    return {
        "zero_optimization": {
            "stage": workers.zero_stage,
            "overlap_comm": workers.use_gpu,  # gloo has no streams to overlap with
            "contiguous_gradients": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": workers.precision == "bfloat16"},
        "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True,  # torch's AdamW: DeepSpeed's own compiles for a minute on CPU
        "steps_per_print": 1_000_000,
        "wall_clock_breakdown": False,
    }


def config_for_trainer(workers: Workers, global_batch: int, is_universal: bool = False) -> dict[str, Any]:
    """DeepSpeed config for `TrainingArguments(deepspeed=...)` with the same batch sizes and GRADIENT_CLIPPING.

    Nothing is left "auto": with ZeRO-3 DeepSpeed reads the config before the trainer could fill it in. It reads it
    before it knows the number of workers too, so the batch over all of them is left for it to multiply.
    `is_universal`: the checkpoint to resume from is one of `make_universal`.
    """
    return {
        **zero_config(workers),
        **(UNIVERSAL if is_universal else {}),
        "train_micro_batch_size_per_gpu": workers.micro_batch,
        "gradient_accumulation_steps": workers.accumulation(global_batch),
        "gradient_clipping": GRADIENT_CLIPPING,
    }


def initialize(
    model: Any,
    optimizer: Any,
    workers: Workers,
    global_batch: int,
    gradient_clipping: float = GRADIENT_CLIPPING,
    scheduler: Any = None,
) -> Any:
    """Wrap a torch module and optimizer into a DeepSpeed engine: `engine(x)`, `engine.backward(loss)`, `engine.step()`.

    Call in a worker of `fit`, where the process group exists. `loss` is the mean over the micro-batch; the engine
    divides by the accumulation steps and averages over workers. Checkpoints: `engine.save_checkpoint(dir)` on every
    rank, `engine.load_checkpoint(dir)`.
    """
    import deepspeed

    config = {
        **zero_config(workers),
        "train_micro_batch_size_per_gpu": workers.micro_batch,
        "gradient_accumulation_steps": workers.accumulation(global_batch),
        "gradient_clipping": gradient_clipping,
    }
    deepspeed.init_distributed(dist_backend="nccl" if workers.use_gpu else "gloo", auto_mpi_discovery=False)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, lr_scheduler=scheduler, config=config, dist_init_required=False
    )
    return engine


def keep_zero3_config(config: dict[str, Any], workers: Workers) -> Any:
    """With ZeRO-3, an object that must stay alive while `from_pretrained` runs; else None.

    It makes transformers shard the weights as it loads them; without it every rank loads the whole model.
    """
    if workers.zero_stage < 3:
        return None
    from transformers.integrations import HfDeepSpeedConfig

    return HfDeepSpeedConfig(config)


def gathered(parameters: list[Any], workers: Workers) -> contextlib.AbstractContextManager[Any]:
    """Within the block the parameters are whole on every rank; all ranks must enter. Nothing to do below ZeRO-3."""
    if workers.zero_stage < 3:
        return contextlib.nullcontext()
    import deepspeed

    context: contextlib.AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters)
    return context


def make_universal(checkpoint: Path) -> None:
    """Add to a DeepSpeed checkpoint its universal form, which any number of workers can load; call on one rank.

    The ordinary form holds a shard a rank and fits the same number of ranks only. To load it, the engine's
    configuration needs `UNIVERSAL`.
    """
    from deepspeed.checkpoint import ds_to_universal

    tag = (checkpoint / "latest").read_text().strip()
    latest = checkpoint / "latest_universal"
    if latest.exists():
        return
    ds_to_universal.main(
        argparse.Namespace(
            input_folder=str(checkpoint / tag),
            output_folder=str(checkpoint / f"{tag}_universal"),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,  # only Megatron's checkpoints carry what it asks for
        )
    )
    latest.write_text(f"{tag}_universal")


def save_checkpoint(engine: Any, state: dict[str, Any], metrics: dict[str, Any], folder: Path) -> None:
    """Store engine and `state` as the worker group's last checkpoint; call on every rank, between steps.

    `folder` is scratch space on a path that all nodes mount; Ray Train copies it to its storage.
    """
    import ray.train
    from torch import distributed

    engine.save_checkpoint(folder, client_state=state)
    distributed.barrier()
    is_first = distributed.get_rank() == 0
    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder) if is_first else None)
    if is_first:
        shutil.rmtree(folder)


def load_checkpoint(engine: Any) -> dict[str, Any]:
    """Load the group's last checkpoint into the engine; returns the `state` stored with it, {} when there is none."""
    import ray.train

    last = ray.train.get_checkpoint()
    if last is None:
        return {}
    with last.as_directory() as folder:
        state: dict[str, Any] = engine.load_checkpoint(folder)[1]
    return state


def fit(loop: Callable[[dict[str, Any]], None], settings: dict[str, Any], workers: Workers, storage: Path) -> None:
    """Run `loop(settings)` in `workers.num_workers` processes of a Ray Train worker group.

    Lost workers are replaced `workers.max_failures` times; a loop finds its last checkpoint with
    `ray.train.get_checkpoint()`. A later call with the same `storage` (a path that all nodes mount) goes on from the
    last checkpoint too. Results are files that the loop writes: reports can be lost with the worker that made them.

    Raises TrainingError when more workers are lost than that.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": workers.cpus_per_worker} | ({"GPU": 1} if workers.use_gpu else {})
    # The driver's import of Ray Train reads these too.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    if not os.environ.get("RAY_ADDRESS"):
        _leave_out_the_cleaner()
    trainer = TorchTrainer(
        lambda worker_settings: _run_without_compiler(loop, worker_settings),
        train_loop_config={**settings, "workers": workers.model_dump()},
        torch_config=TorchConfig(backend="nccl" if workers.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers, use_gpu=workers.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": worker_env(workers)},
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        said = "; ".join(
            f"rank {rank}: {str(failure).strip().splitlines()[-1]}"
            for rank, failure in sorted(error.worker_failures.items())
        )
        kept = "the last checkpoint is kept in" if any(storage.glob("ray/checkpoint_*")) else "no checkpoint yet in"
        raise TrainingError(
            f"{storage.parent}: training lost workers more often than workers.max_failures allows; {said}; {kept} "
            f"{storage}/ray. Mend the cause (free space, memory), then the same command goes on"
        ) from error


def _run_without_compiler(loop: Callable[[dict[str, Any]], None], settings: dict[str, Any]) -> None:
    """Run the loop, DeepSpeed not compiling an operator that only tensor-parallel inference on CPUs calls.

    It takes a minute on a new machine, in which every worker waits.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    loop(settings)


def _leave_out_the_cleaner() -> None:
    """Start a local Ray's training without Ray Train's PlacementGroupCleaner.

    It asks the state API every second whether the controller lives. A local Ray has no dashboard to ask; should another
    Ray on the machine have one, that one is asked, knows no such actor, and the cleaner removes the running workers
    (seen with Ray 2.60.0). What it is for, a controller that dies alone, ends a local Ray anyway.
    """
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2.api import data_parallel_trainer

    class NoCleaner(PlacementGroupCleanerCallback):  # type: ignore[misc]
        def after_controller_start(self, *_: object) -> None: ...

        def after_worker_group_start(self, *_: object) -> None: ...

    data_parallel_trainer.PlacementGroupCleanerCallback = NoCleaner  # type: ignore[misc]
