"""The training processes: TRL trainers with PEFT and DeepSpeed inside Ray Train workers.

Each loop runs in every worker with the same plain settings, trains, and leaves a model or an adapter and
`history.json` on the file system that the nodes share. torch, transformers, peft and trl are imported in the workers.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raylib.folders import whole_folder
from raylib.ray_deepspeed import (
    GRADIENT_CLIPPING,
    Workers,
    config_for_trainer,
    gathered,
    keep_zero3_config,
    make_universal,
)
from raylib.teacher.encoding import load_tokenizer
from raylib.teacher.scratch import Scratch, new_model

Settings = dict[str, Any]
WORKERS_FILE = "workers.json"  # in each checkpoint: the Workers that wrote it
# transformers' names for the orders of SftConfig; rows that go from short to long are sorted in the file
SAMPLING = {"random": "random", "short_to_long": "sequential", "similar_length": "group_by_length"}


def dapt_loop(settings: Settings) -> None:
    """Continued pre-training of all weights (arXiv 2510.11056, step 1), or pre-training of a new model."""
    from trl import SFTConfig, SFTTrainer

    tokenizer = load_tokenizer(settings["tokenizer"])
    with _prepared(settings) as (workers, arguments):
        if settings["scratch"]:
            model = new_model(Scratch(**settings["scratch"]), tokenizer, settings["max_length"], settings["seed"])
        else:
            model = _load_base(settings, workers)
        trainer = SFTTrainer(
            model,
            SFTConfig(max_length=None, **arguments),
            train_dataset=_dataset(settings),
            processing_class=tokenizer,
        )
        if _train(trainer, settings):
            _save_model(trainer, tokenizer, workers, Path(settings["output"]))


def sft_loop(settings: Settings) -> None:
    """Supervised fine-tuning of a new LoRA adapter (arXiv 2601.21611 eq. 3)."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    tokenizer = load_tokenizer(settings["model"])
    with _prepared(settings) as (workers, arguments):
        trainer = SFTTrainer(
            _load_base(settings, workers),
            SFTConfig(max_length=None, **arguments),
            train_dataset=_dataset(settings),
            processing_class=tokenizer,
            peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **settings["lora"]),
        )
        if _train(trainer, settings):
            _save_adapter(trainer, workers, Path(settings["output"]))


def dpo_loop(settings: Settings) -> None:
    """Direct preference optimisation that goes on training the SFT adapter.

    The reference is the SFT policy. TRL 1.16 sees a PeftModel without `peft_config` and `ref_model`, adds a frozen
    copy of the adapter named "ref" and switches to it for the reference log-probabilities: the base is held once.
    The printed eq. 5 omits beta and the reference; the loss is that of arXiv 2305.18290.
    """
    from peft import PeftModel
    from trl import DPOConfig

    tokenizer = load_tokenizer(settings["model"])
    with _prepared(settings) as (workers, arguments):
        base = _load_base(settings, workers)
        policy = PeftModel.from_pretrained(base, settings["adapter"], is_trainable=True)
        trainer = _preference_trainer()(
            policy,
            args=DPOConfig(
                max_length=None,
                beta=settings["beta"],
                precompute_ref_log_probs=settings["precompute_reference"],
                **arguments,
            ),
            train_dataset=_dataset(settings),
            processing_class=tokenizer,
        )
        if _train(trainer, settings):
            _save_adapter(trainer, workers, Path(settings["output"]))


def _preference_trainer() -> Any:
    from trl import DPOTrainer

    class EncodedDPOTrainer(DPOTrainer):
        """Takes token ids: TRL would encode the conversations again, and drop rows that are too long silently."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    return EncodedDPOTrainer


@contextlib.contextmanager
def _prepared(settings: Settings) -> Iterator[tuple[Workers, dict[str, Any]]]:
    """Threads, and the arguments that every trainer takes; with ZeRO-3 weights are sharded as they are loaded."""
    import torch
    from transformers import set_seed

    workers = Workers(**settings["workers"])
    os.environ["TENSORBOARD_LOGGING_DIR"] = settings["tensorboard"]
    torch.set_num_threads(workers.cpus_per_worker)
    set_seed(settings["seed"])
    deepspeed_config = config_for_trainer(workers, settings["global_batch"], _is_of_other_workers(workers))
    arguments = {
        "output_dir": str(Path(settings["storage"]) / "trainer"),
        "num_train_epochs": settings["num_epochs"],
        "per_device_train_batch_size": workers.micro_batch,
        "gradient_accumulation_steps": workers.accumulation(settings["global_batch"]),
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings["warmup_ratio"],  # below 1 transformers reads it as a share of the steps
        "weight_decay": settings.get("weight_decay", 0.0),
        "max_grad_norm": GRADIENT_CLIPPING,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": workers.checkpoint_steps,
        "save_total_limit": 2,
        "seed": settings["seed"],
        "data_seed": settings["seed"],
        "use_cpu": not workers.use_gpu,
        "bf16": workers.precision == "bfloat16",
        "fp16": False,
        "deepspeed": deepspeed_config,
        "ddp_backend": "nccl" if workers.use_gpu else "gloo",
        "gradient_checkpointing": workers.use_gpu,  # trades time for memory, which the CPU runs have
        "logging_nan_inf_filter": False,  # a loss that is no number must be seen
        "train_sampling_strategy": SAMPLING[settings.get("order", "random")],
        "report_to": settings["trackers"] or "none",
        "disable_tqdm": True,
    }
    keeper = keep_zero3_config(deepspeed_config, workers)
    yield workers, arguments
    del keeper


def _is_of_other_workers(workers: Workers) -> bool:
    """Whether the checkpoint to resume from was written by another number of workers, or at another ZeRO stage."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return False
    written = Workers(**json.loads(Path(checkpoint.path, WORKERS_FILE).read_text()))
    return (written.num_workers, written.zero_stage) != (workers.num_workers, workers.zero_stage)


def _load_base(settings: Settings, workers: Workers) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, workers.precision))


def _dataset(settings: Settings) -> Any:
    from datasets import Dataset

    return Dataset.from_parquet(settings["examples"], cache_dir=str(Path(settings["storage"]) / "cache"))


def _train(trainer: Any, settings: Settings) -> bool:
    """Train from the last complete checkpoint, if there is one; rank 0 writes the history.

    False when training went wrong: then there is nothing to save.
    """
    import ray.train
    import torch

    from raylib.teacher.callbacks import ReportCheckpoints, StopWhenNotFinite

    watch = StopWhenNotFinite(Path(settings["storage"]))
    trainer.add_callback(watch)
    trainer.add_callback(ReportCheckpoints(settings["workers"]))
    checkpoint = ray.train.get_checkpoint()
    # read now: Ray Train deletes the checkpoint once two newer ones exist
    resumed_at_step = int(Path(checkpoint.path, "step").read_text()) if checkpoint else 0
    started_s = time.time()
    with checkpoint.as_directory() if checkpoint else contextlib.nullcontext() as directory:
        if directory and _is_of_other_workers(Workers(**settings["workers"])):
            if torch.distributed.get_rank() == 0:
                make_universal(Path(directory))
            torch.distributed.barrier()
        result = trainer.train(resume_from_checkpoint=directory)
    if trainer.is_world_process_zero():
        history = {
            "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
            "num_steps": trainer.state.global_step,
            "resumed_at_step": resumed_at_step,
            "train_s": time.time() - started_s,
            "mean_loss": result.training_loss,
        }
        Path(settings["storage"], "history.json").write_text(json.dumps(history))
    return not watch.has_failed


def _save_adapter(trainer: Any, workers: Workers, directory: Path) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with gathered(trained, workers):
        if trainer.is_world_process_zero():
            with whole_folder(directory) as partial:
                model.save_pretrained(partial, selected_adapters=["default"])


def _save_model(trainer: Any, tokenizer: Any, workers: Workers, directory: Path) -> None:
    """Weights in bfloat16, as inference takes them; half the size of float32."""
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    with gathered(list(model.parameters()), workers):
        if trainer.is_world_process_zero():
            tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
            state = {
                name: tensor.detach().to(torch.bfloat16).contiguous()
                for name, tensor in model.state_dict().items()
                if name not in tied
            }
            model.config.dtype = torch.bfloat16
            with whole_folder(directory) as partial:
                model.save_pretrained(partial, state_dict=state)
                tokenizer.save_pretrained(partial)
