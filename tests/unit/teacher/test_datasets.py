import json

import pyarrow.parquet as pq
import pytest

from raylib import tables
from raylib.errors import InputError
from raylib.teacher.datasets import LANGUAGE, encode_rows, write_examples
from raylib.teacher.launch import launch, loss_curve


def encode(row):
    return {"input_ids": list(range(row["n"])), "labels": list(range(row["n"]))}


def test_long_rows_are_rejected_whole():
    rejected = []
    kept = list(encode_rows([{"n": 3}, {"n": 9}, {"n": 8}], encode, 8, "sft", rejected))
    assert [len(example["input_ids"]) for example in kept] == [3, 8]
    tables.rows_batch(rejected, tables.REJECTED)
    assert rejected[0]["reason"] == "too_long"
    assert json.loads(rejected[0]["payload"]) == {"n": 9}


def test_written_examples_are_counted(tmp_path):
    counts = write_examples(tmp_path / "e.parquet", LANGUAGE, (encode({"n": n}) for n in range(1, 2301)))
    assert counts == {"num_examples": 2300, "num_tokens": sum(range(1, 2301))}
    assert pq.read_metadata(tmp_path / "e.parquet").num_rows == 2300


def test_nothing_to_train_on_is_told_before_ray_starts(tmp_path):
    with pytest.raises(InputError, match="no row is left"):
        launch(None, {}, None, tmp_path / "training", {"num_examples": 0, "num_tokens": 0})


@pytest.mark.parametrize("num_losses", [1, 7, 200, 201, 1000])
def test_loss_curve_keeps_the_mean_and_the_last_step(num_losses):
    losses = [float(i) for i in range(num_losses)]
    curve = loss_curve(losses)
    assert len(curve) <= 200
    assert curve[-1][0] == num_losses
    steps = [0, *(step for step, _ in curve)]
    total = sum((end - start) * mean for start, (end, mean) in zip(steps, curve, strict=False))
    assert total == pytest.approx(sum(losses))
