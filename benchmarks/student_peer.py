"""The student's peer in training: sentence-transformers' CrossEncoderTrainer on the same backbone and train pairs."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from raylib.evaluation.inputs import Judged
from raylib.labels import LabelSchema
from raylib.models import resolve_model

NUM_EPOCHS = 3
LEARNING_RATE = 5e-5
BATCH = 32
MAX_LENGTH = 128
FIELDS = ("title", "brand")
TITLE = f"CrossEncoderTrainer, {NUM_EPOCHS} epochs at {LEARNING_RATE:g}"


def classes(train: Judged, test: Judged, schema: LabelSchema, seed: int, file: Path) -> np.ndarray:
    """Classes [N] of the test pairs; kept in `file`, and not trained again where it is there.

    In bfloat16, as the students; the last epoch's weights, as the trainer leaves them.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        model, _ = trained(*_texts(train), train.gold_N.tolist(), len(schema.names), seed=seed)
        found = model.predict(list(zip(*_texts(test), strict=True)), show_progress_bar=False)
        np.save(file, np.asarray(found).argmax(1))
    kept: np.ndarray = np.load(file)
    return kept


def _texts(judged: Judged) -> tuple[list[str], list[str]]:
    from raylib.student.data import item_text

    rows = judged.table.to_pylist()
    return [row["query"] for row in rows], [item_text(row, FIELDS) for row in rows]


def trained(
    queries: list[str],
    items: list[str],
    labels: list[int],
    num_classes: int,
    num_epochs: int = NUM_EPOCHS,
    bf16: bool = True,
    seed: int = 0,
) -> tuple[Any, float]:
    """The trained CrossEncoder, and the seconds that its training took; `labels` are places in the schema."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import CrossEntropyLoss
    from transformers import set_seed

    set_seed(seed)  # the head is new
    model = CrossEncoder(resolve_model("minilm"), num_labels=num_classes, max_length=MAX_LENGTH, device="cpu")
    data = Dataset.from_dict({"query": queries, "item": items, "label": labels})
    with tempfile.TemporaryDirectory() as folder:
        arguments = CrossEncoderTrainingArguments(
            output_dir=folder,
            num_train_epochs=num_epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            warmup_ratio=0.1,
            seed=seed,
            bf16=bf16,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=CrossEntropyLoss(model))
        started_s = time.perf_counter()
        trainer.train()
        return model, time.perf_counter() - started_s
