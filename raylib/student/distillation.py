"""Epochs of training with the best one kept, then scores; on one process or on several that share a file system."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import distributed
from transformers import AutoTokenizer

from raylib import tables
from raylib.kernels.fused import DTYPES, activation_ranges, can_fuse
from raylib.kernels.training import speed_up
from raylib.labels import LabelSchema
from raylib.student.artifact import complete, load_backbone, load_student, save_student
from raylib.student.calibration import cross_entropy, fit_temperature
from raylib.student.data import PairTokenizer, budget_batches
from raylib.student.inference import for_inference, predict_logits, predict_probs, score_rows
from raylib.student.judged import JudgedPairs
from raylib.student.metrics import Counts, accuracy, confusion, macro_f1, summarise
from raylib.student.model import Student, StudentSpec
from raylib.student.objectives import build_objective
from raylib.student.tiers import TierTargets, fit_thresholds, measure_tiers
from raylib.student.train import Engine, Log, TrainSettings, balanced_weights, make_optimizer, no_log, train_epoch
from raylib.student.workers import summed, world

NUM_CALIBRATION = 512  # training pairs whose activations set the ranges of int8
CALIBRATION_TOKENS = 2048  # a batch
History = list[dict[str, float]]  # one record an epoch: epoch, loss, dev_accuracy, dev_macro_f1


def distil(
    backbone: str,
    spec: StudentSpec,
    settings: TrainSettings,
    objective: str,
    reduction: str,
    embedding_size: int | None,
    is_balanced: bool,
    is_bfloat16: bool,
    splits: Path,
    output: str,
    make_engine: Callable[[Student, torch.optim.Optimizer], Engine],
    resume: Callable[[Engine], History],
    checkpoint: Callable[[Engine, History], None],
    log: Log = no_log,
    tiers: TierTargets | None = None,
) -> None:
    """What one process of a distill job does: train (or go on training), then score dev and test.

    Leaves in the directory `output`: `model/`, `training.json` and its file of the scores table. The three functions
    are the engine's: wrap a module, load the last checkpoint into it, write one.
    """
    torch.manual_seed(settings.seed)
    student = Student(load_backbone(backbone), spec)
    student.objective = build_objective(
        objective, student.backbone, student.latent_size, embedding_size, reduction, spec.num_latents
    )
    student.autocast_dtype = torch.bfloat16 if is_bfloat16 else None
    speed_up(student.backbone)
    engine = make_engine(student, make_optimizer(student, settings.learning_rate, settings.weight_decay))
    train, dev = JudgedPairs.load(splits / "train"), JudgedPairs.load(splits / "dev")
    if is_balanced:
        counts_C = np.bincount(train.gold_N, minlength=len(spec.label_schema.names)).tolist()
        settings = replace(settings, class_weight_C=balanced_weights(counts_C))
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    artifact = Path(output) / "model"
    earlier = resume(engine)
    history = train_student(
        engine, tokenizer, train, dev, settings, artifact, earlier, lambda done: checkpoint(engine, done), log
    )
    if world()[0] == 0:
        record = {"epochs": history, "resumed_at_epoch": len(earlier), **complete_artifact(artifact, splits, tiers)}
        (Path(output) / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    if distributed.is_initialized():
        distributed.barrier()  # scores are those of the complete artifact
    write_scores(artifact, splits, output)


def train_student(
    engine: Engine,
    tokenizer: Any,
    train: JudgedPairs,
    dev: JudgedPairs,
    settings: TrainSettings,
    best: Path,
    history: History,
    checkpoint: Callable[[History], None],
    log: Log = no_log,
) -> History:
    """Train the epochs that `history` does not have yet, or until dev gets no better; returns one record an epoch.

    After each epoch all workers measure dev together, the first one writes the artifact to `best` when dev macro-F1 is
    above that of every earlier epoch, and `checkpoint(history)` is called on all of them. `tokenizer` is the Hugging
    Face tokenizer of the backbone. `log` gets every update's loss, and dev's figures by epoch.
    """
    rank, num_workers = world()
    student = cast(Student, engine.module)
    pair_tokenizer = PairTokenizer(tokenizer, student.spec.max_length)
    for epoch in range(len(history), settings.num_epochs):
        if is_enough(history, settings.patience):
            break
        losses = train_epoch(engine, train, pair_tokenizer, settings, epoch, rank, num_workers, log)
        counts_CC = dev_confusion(student, pair_tokenizer, dev, rank, num_workers)
        record = {
            "epoch": epoch + 1,
            "loss": float(np.mean(losses)),
            "dev_accuracy": accuracy(counts_CC),
            "dev_macro_f1": macro_f1(counts_CC),
        }
        if rank == 0:
            print(" ".join(f"{name} {value:.4g}" for name, value in record.items()), flush=True)
            for name in ("dev_accuracy", "dev_macro_f1"):
                log(name, record[name], epoch + 1)
            if record["dev_macro_f1"] > max((earlier["dev_macro_f1"] for earlier in history), default=-1.0):
                save_student(student, tokenizer, best)
        history = [*history, record]
        checkpoint(history)
    return history


def is_enough(history: History, patience: int | None) -> bool:
    """True when the last `patience` epochs were not better on dev than the best before them; None never is."""
    if patience is None or len(history) <= patience:
        return False
    scores = [record["dev_macro_f1"] for record in history]
    return max(scores[-patience:]) <= max(scores[:-patience])


def dev_confusion(student: Student, tokenizer: PairTokenizer, dev: JudgedPairs, rank: int, num_workers: int) -> Counts:
    """Confusion matrix over all of dev; each worker predicts every `num_workers`-th pair."""
    rows = np.arange(rank, len(dev), num_workers)
    probs_NC = predict_probs(for_inference(student), tokenizer, dev.pairs.take(rows))
    counts_CC = confusion(dev.gold_N[rows], probs_NC.argmax(1), probs_NC.shape[1])
    return summed(counts_CC)


def complete_artifact(artifact: Path, splits: Path, tiers: TierTargets | None = None) -> dict[str, Any]:
    """Calibrate the student on dev, measure its activation ranges on training pairs, and store both with it.

    With targets for `tiers` their thresholds are fitted on dev too, and take the place of the label schema's. Returns
    `calibration` (None without a dev pair) and `by_precision`, what each precision gives on dev (None where the student
    cannot be scored in int8: on a GPU, with a backbone that is not BERT).
    """
    student, tokenizer = load_student(artifact)
    pair_tokenizer = PairTokenizer(tokenizer, student.spec.max_length)
    train, dev = (JudgedPairs.load(splits / name) for name in ("train", "dev"))
    logits_NC = torch.from_numpy(predict_logits(for_inference(student), pair_tokenizer, dev.pairs))
    calibration = None
    if len(dev):
        gold_N = torch.tensor(dev.gold_N)
        temperature = fit_temperature(logits_NC, gold_N)
        student.spec = student.spec.model_copy(update={"temperature": temperature})
        calibration = {
            "temperature": temperature,
            "dev_cross_entropy_before": cross_entropy(logits_NC, gold_N, 1.0),
            "dev_cross_entropy_after": cross_entropy(logits_NC, gold_N, temperature),
        }
    if tiers:
        schema, gains_C = student.spec.label_schema, np.asarray(student.spec.label_schema.gains)
        score_N = (logits_NC / student.spec.temperature).softmax(1).numpy().astype(np.float64) @ gains_C
        starts = fit_thresholds(score_N, gains_C[dev.gold_N], tiers)
        schema = schema.model_copy(update={"tier_thresholds": starts})
        student.spec = student.spec.model_copy(update={"label_schema": schema})
    if torch.cuda.is_available() or not can_fuse(student.backbone):
        complete(student, artifact, None)
        return {"calibration": calibration, "by_precision": None}
    sample = train.pairs.take(np.random.default_rng(0).permutation(len(train))[:NUM_CALIBRATION])
    batches = (pair_tokenizer.collate(sample, rows) for rows in budget_batches(sample.lengths_N, CALIBRATION_TOKENS))
    ranges = activation_ranges(student.backbone, batches)
    complete(student, artifact, ranges)
    by_precision = {}
    for dtype in DTYPES:
        probs_NC = predict_probs(for_inference(student, dtype, ranges), pair_tokenizer, dev.pairs)
        counts_CC = confusion(dev.gold_N, probs_NC.argmax(1), probs_NC.shape[1])
        by_precision[dtype] = {"dev_accuracy": accuracy(counts_CC), "dev_macro_f1": macro_f1(counts_CC)}
    return {"calibration": calibration, "by_precision": by_precision}


def write_scores(artifact: Path, splits: Path, output: str) -> None:
    """Score this worker's share of the judged dev and test pairs; writes one file of the scores table."""
    rank, num_workers = world()
    student, tokenizer = load_student(artifact)
    student = for_inference(student.to("cuda" if torch.cuda.is_available() else "cpu"))
    pair_tokenizer = PairTokenizer(tokenizer, student.spec.max_length)
    rows: list[dict[str, object]] = []
    for name in ("dev", "test"):
        split = JudgedPairs.load(splits / name)
        mine = np.arange(rank, len(split), num_workers)
        probs_NC = predict_probs(student, pair_tokenizer, split.pairs.take(mine))
        rows += score_rows(split.pair_id_N[mine].tolist(), probs_NC, student.spec.label_schema)
    tables.write_parquet(f"{output}/scores-{rank:05d}.parquet", tables.SCORES, [tables.rows_batch(rows, tables.SCORES)])


def measure_scores(
    output: str, splits: Path, schema: LabelSchema, tiers: TierTargets | None = None
) -> dict[str, dict[str, Any] | None]:
    """Accuracy, macro-F1 and majority baseline of the written scores on `dev` and `test`; None for an empty split.

    With targets, what became of them there as `tiers`.
    """
    table = tables.read_table(output, tables.SCORES, ["pair_id", "label", "tier"])
    predicted = dict(zip(table["pair_id"].to_pylist(), table["label"].to_pylist(), strict=True))
    tier_of = dict(zip(table["pair_id"].to_pylist(), table["tier"].to_pylist(), strict=True))
    measured: dict[str, dict[str, Any] | None] = {}
    for name in ("dev", "test"):
        split = JudgedPairs.load(splits / name)
        labels_N = np.array([schema.index(predicted[pair_id]) for pair_id in split.pair_id_N.tolist()], np.int64)
        if not len(split):
            measured[name] = None
            continue
        found: dict[str, Any] = summarise(confusion(split.gold_N, labels_N, len(schema.names)))
        if tiers:
            tier_N = np.array([tier_of[pair_id] for pair_id in split.pair_id_N.tolist()])
            found["tiers"] = measure_tiers(tier_N, np.asarray(schema.gains)[split.gold_N], tiers)
        measured[name] = found
    return measured
