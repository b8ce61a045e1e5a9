"""Pairs and rationale embeddings -> the student: `model/` (artifact) and the scores table of dev and test.

    python -m jobs.distill --config FILE --pairs runs/prepare --embeddings runs/embed --output runs/lrkd

Only judged pairs train. Each epoch is a checkpoint; a lost worker is replaced and goes on from the last one, as does
a rerun of the job, also with another number of workers. The epoch with the best dev macro-F1 becomes the student.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from raylib.config import JobConfig, Section, main
from raylib.errors import InputError, TrainingError
from raylib.labels import LabelSchema
from raylib.models import resolve_model
from raylib.ray_session import ray_session
from raylib.runs import Run, require_done
from raylib.student.tiers import TierTargets

FAILURE = "failure.txt"
# what each objective needs of the teacher
TEXTS = "guidance.rationales"
SOURCES = {"bert": None, "lrkd": "embeddings", "ced_kd": TEXTS, "mkd": TEXTS, "crsd": TEXTS}


class Guidance(Section):
    """How the teacher's rationales join the loss (arXiv 2601.21611 eq. 8-9)."""

    weight: float = Field(0.1, ge=0.0, description="lambda, the weight of what the objective adds; published: 0.1")
    reduction: Literal["mean", "sum"] = Field("mean", description="over dimensions: mean (text, MSE) or sum (formula)")
    pairs: Literal["consistent", "all"] = Field(
        "consistent", description="consistent: only where the rationale's label is the gold one; all: every embedding"
    )
    rationales: str | None = Field(
        None, description="run directory of annotate, for ced_kd, mkd and crsd: one answer a pair; else null"
    )
    perspective: str = Field("unified", description="whose answers of `rationales` and `soft_labels` they are")
    soft_labels: str | None = Field(
        None, description="run directory of annotate with label_probs: the teacher's classes, learnt by KL; else null"
    )
    soft_weight: float = Field(1.0, gt=0.0, description="weight of that divergence beside the gold classes")


class Schedule(Section):
    """How training goes: its rate, what holds it back, and when it ends."""

    warmup_ratio: float = Field(0.1, ge=0.0, lt=1.0, description="share of updates with rising rate; not published")
    weight_decay: float = Field(0.01, ge=0.0, description="AdamW's, on matrices only; not published, BERT's own")
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0, description="share of a gold label spread over all classes")
    patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better dev macro-F1; null: train all of them"
    )


class StudentWorkers(Section):
    """How training is spread over the cluster."""

    num_workers: int = Field(1, ge=1, description="training processes; divides global_batch")
    use_gpu: bool = Field(False, description="one GPU a process, with nccl; false: CPU with gloo")
    cpus_per_worker: int = Field(1, ge=1, description="cores (and threads) of one process")
    max_failures: int = Field(3, ge=0, description="how often a lost worker is replaced before the job fails")


class DistillConfig(JobConfig):
    """Train a student, alone (objective bert), guided by rationale embeddings (lrkd), or in a rival's way."""

    adjustable: ClassVar[tuple[str, ...]] = ("workers",)

    output: str = Field(description="run directory to write; a path that all nodes mount")
    pairs: str = Field(description="run directory of prepare")
    embeddings: str | Annotated[tuple[str, ...], Field(strict=False)] | None = Field(
        None, description="run directory of embed, for objective lrkd; several: a latent for each; else null"
    )
    label_schema: str = Field(description="shipped label schema, or path of a YAML file")
    backbone: str = Field(
        "minilm",
        description="encoder: minilm, a directory, a Hugging Face id, or the `model` of an earlier distill run",
    )
    objective: Literal["bert", "lrkd", "ced_kd", "mkd", "crsd"] = Field(
        "lrkd", description="bert: classes only; lrkd: the latent is guided; the others are published rivals"
    )
    extractor: Literal["none", "mlp", "poly", "gat"] = Field("gat", description="what makes the latent (eq. 10-16)")
    width: int | None = Field(None, ge=1, description="dimension of a latent; null = hidden size of the backbone")
    guidance: Guidance = Guidance()  # type: ignore[call-arg]  # pydantic's mypy plugin is not used
    item_fields: tuple[Literal["title", "brand", "category", "attributes"], ...] = Field(
        ("title", "brand"), strict=False, min_length=1, description="item text"
    )
    max_length: int = Field(128, ge=8, description="tokens a pair, item cut first; published: 128")
    num_epochs: int = Field(5, ge=1, description="passes over the training pairs; published: 5")
    global_batch: int = Field(256, ge=1, description="pairs an update, over all workers; published: 256")
    learning_rate: float = Field(2e-6, gt=0.0, description="peak learning rate of AdamW; published: 2e-6")
    schedule: Schedule = Schedule()  # type: ignore[call-arg]
    class_weights: Literal["balanced"] | None = Field(None, description="balanced: each class weighs the same in total")
    seed: int = Field(0, ge=0, description="of initial weights, order and dropout")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the backbone's products in training")
    tiers: TierTargets | None = Field(
        None, description="precisions from which the tiers' thresholds are fitted on dev; null: the label schema's"
    )
    workers: StudentWorkers = StudentWorkers()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        needed = SOURCES[self.objective]
        for name, given in (("embeddings", self.embeddings), (TEXTS, self.guidance.rationales)):
            if (needed == name) != (given is not None):
                verb = "needs them" if needed == name else "takes none (null)"
                raise ValueError(f"{name}: objective {self.objective} {verb}")
        if self.global_batch % self.workers.num_workers:
            raise ValueError(f"global_batch {self.global_batch} is no multiple of {self.workers.num_workers} workers")
        if self.extractor == "none" and len(self.sources) > 1:
            raise ValueError(f"embeddings: {len(self.sources)} of them need as many latents, extractor none has one")
        if self.extractor in ("none", "poly") and self.width is not None:
            raise ValueError(f"width: extractor {self.extractor} has that of the backbone; leave it null")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """Run directories of embed."""
        if self.embeddings is None:
            return ()
        return (self.embeddings,) if isinstance(self.embeddings, str) else self.embeddings


def run(config: DistillConfig) -> dict[str, Any]:
    """Train, score dev and test, write the artifact; returns the metrics."""
    run = Run(config.output, "distill", config)
    if run.is_done:
        return run.metrics()
    schema, backbone = LabelSchema.load(config.label_schema), _resolve_backbone(config.backbone)
    inputs = _inputs(config)
    for uri in inputs.values():
        require_done(uri)
    from raylib.ray_deepspeed import Workers, fit
    from raylib.student.artifact import CARD, add_text, load_student
    from raylib.student.card import render
    from raylib.student.distillation import measure_scores

    splits = run.path("splits")
    facts = _write_splits(config, splits, schema, backbone)
    rows = facts.pop("rows")
    run.write_provenance(inputs, backbone=backbone, **facts)
    micro_batch = config.global_batch // config.workers.num_workers
    # The student is small: nothing is sharded, so that a checkpoint fits any number of workers.
    workers = Workers(**config.workers.model_dump(), micro_batch=micro_batch, zero_stage=0)
    failure = run.path(FAILURE)
    failure.unlink(missing_ok=True)
    places = {"backbone": backbone, "splits": splits, "output": str(run.path(""))}
    with ray_session():
        fit(train_worker, {**_training(config, schema, facts), **places}, workers, run.path("checkpoints"))
    if failure.exists():
        raise TrainingError(
            f"{config.output}: training stopped: {failure.read_text()}; another setting needs another output"
        )
    facts |= measure_scores(config.output, splits, schema, config.tiers)
    facts |= json.loads(run.read_text("training.json"))
    about = {**facts, "objective": config.objective, "backbone": config.backbone}
    add_text(run.path("model"), CARD, render(load_student(run.path("model"))[0].spec, about))
    for name in ("splits", "checkpoints"):
        shutil.rmtree(run.path(name))
    skipped = {"train": rows["train"], "unjudged": rows["unjudged"]}
    return run.finish(sum(rows.values()), rows["dev"] + rows["test"], {}, skipped, **facts)


def _resolve_backbone(name_or_path: str) -> str:
    """Path or id of the encoder; of a student its artifact, once its run has finished."""
    from raylib.student.artifact import is_student

    if is_student(f"{name_or_path}/model"):
        raise InputError(f"{name_or_path}: a run of distill, not an encoder; name its student: {name_or_path}/model")
    if not is_student(name_or_path):
        return resolve_model(name_or_path)
    folder = Path(name_or_path).absolute()
    require_done(str(folder.parent))
    return str(folder)


def _inputs(config: DistillConfig) -> dict[str, str]:
    """Every run directory that is read, by its part in this job."""
    several = len(config.sources) > 1
    guides = {"rationales": config.guidance.rationales, "soft_labels": config.guidance.soft_labels}
    return {
        "pairs": config.pairs,
        **{f"embeddings_{k}" if several else "embeddings": uri for k, uri in enumerate(config.sources, 1)},
        **{name: uri for name, uri in guides.items() if uri},
    }


def _write_splits(config: DistillConfig, folder: Path, schema: LabelSchema, backbone: str) -> dict[str, Any]:
    """Tokenise pairs and guidance for the workers; returns what was counted."""
    from transformers import AutoTokenizer

    from raylib.student.artifact import backbone_config
    from raylib.student.data import PairTokenizer
    from raylib.student.dataset import read_guidance, read_rationales, read_soft_labels, write_splits

    tokenizer = PairTokenizer(AutoTokenizer.from_pretrained(backbone), config.max_length)
    tokenizer.check_fits(backbone_config(backbone).vocab_size, backbone)
    guide = config.guidance
    teachers = [read_guidance(uri) for uri in config.sources]
    if guide.rationales:
        teachers = [read_rationales(guide.rationales, guide.perspective)]
    soft = read_soft_labels(guide.soft_labels, guide.perspective, schema) if guide.soft_labels else None
    return write_splits(folder, config.pairs, teachers, schema, config.item_fields, tokenizer, guide.pairs, soft)


def _training(config: DistillConfig, schema: LabelSchema, facts: dict[str, Any]) -> dict[str, Any]:
    """What the workers are told of the student and its training."""
    from raylib.student.model import StudentSpec
    from raylib.student.train import TrainSettings

    guide = config.guidance
    shape = config.model_dump(include={"extractor", "width", "max_length", "item_fields"})
    schedule = {
        **config.model_dump(include={"num_epochs", "global_batch", "learning_rate", "seed"}),
        **config.schedule.model_dump(),
        "guidance_weight": guide.weight,
        "soft_weight": guide.soft_weight if guide.soft_labels else 0.0,
    }
    return {
        "spec": StudentSpec(label_schema=schema, num_latents=max(1, len(config.sources)), **shape),
        "settings": TrainSettings(**schedule),
        "objective": config.objective,
        "reduction": guide.reduction,
        "embedding_size": facts["embedding_size"],
        "tiers": config.tiers,
        "is_balanced": config.class_weights == "balanced",
        "is_bfloat16": config.dtype == "bfloat16",
    }


def train_worker(settings: dict[str, Any]) -> None:
    """One process of the training group; Ray Train calls it, again after a worker was lost."""
    from ray.train import get_context
    from tensorboardX import SummaryWriter

    from raylib.ray_deepspeed import Workers, initialize, load_checkpoint, save_checkpoint
    from raylib.student.distillation import distil
    from raylib.student.train import no_log

    workers = Workers.model_validate(settings.pop("workers"))
    global_batch, scratch = settings["settings"].global_batch, Path(settings["output"]) / "checkpoints" / "_last"
    board = SummaryWriter(f"{settings['output']}/tensorboard") if get_context().get_world_rank() == 0 else None
    try:
        distil(
            **settings,
            make_engine=lambda student, optimizer: initialize(student, optimizer, workers, global_batch),
            resume=lambda engine: load_checkpoint(engine).get("history", []),
            checkpoint=lambda engine, done: save_checkpoint(engine, {"history": done}, done[-1], scratch),
            log=board.add_scalar if board else no_log,
        )
    except TrainingError as error:  # on all workers at once; it would come again, so they are not replaced
        if board:
            Path(settings["output"], FAILURE).write_text(str(error))
    if board:
        board.close()


if __name__ == "__main__":
    main(DistillConfig, run, "jobs.distill")
