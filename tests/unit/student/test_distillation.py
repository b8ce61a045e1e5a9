"""The epochs around the loop: best one kept, resumed runs equal uninterrupted ones."""

import pytest
import torch

from raylib import tables
from raylib.labels import LabelSchema
from raylib.student.artifact import load_student
from raylib.student.distillation import is_enough, measure_scores, train_student, write_scores
from raylib.student.train import TorchEngine, TrainSettings

SETTINGS = TrainSettings(num_epochs=4, global_batch=8, learning_rate=2e-2, warmup_ratio=0.1, seed=1)


@pytest.fixture
def train(make_student, make_judged, tokenizer, tmp_path):
    def run(engine=None, history=(), checkpoint=lambda _: None, name="model"):
        engine = engine or TorchEngine(make_student(), SETTINGS.learning_rate, 0.01)
        data, dev = make_judged(32), make_judged(16, seed=9)
        return engine, train_student(engine, tokenizer, data, dev, SETTINGS, tmp_path / name, list(history), checkpoint)

    return run


def test_resumed_run_equals_an_uninterrupted_one(train, make_student):
    saved = {}

    def stop_after_two(history):
        if len(history) == 2:
            saved["history"] = history
            saved["model"] = {k: v.clone() for k, v in engine.module.state_dict().items()}
            saved["optimizer"] = engine.optimizer.state_dict()
            raise KeyboardInterrupt

    engine = TorchEngine(make_student(), SETTINGS.learning_rate, 0.01)
    with pytest.raises(KeyboardInterrupt):
        train(engine, checkpoint=stop_after_two)
    torch.manual_seed(12345)  # a new process has another random state
    fresh = TorchEngine(make_student(seed=8), SETTINGS.learning_rate, 0.01)
    fresh.module.load_state_dict(saved["model"])
    fresh.optimizer.load_state_dict(saved["optimizer"])
    fresh, resumed = train(fresh, saved["history"])
    whole, uninterrupted = train(name="other")
    assert resumed == uninterrupted
    for one, other in zip(fresh.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_artifact_is_the_epoch_with_the_best_dev_macro_f1(train, tmp_path):
    states = []
    _, history = train(
        checkpoint=lambda _: states.append(load_student(tmp_path / "model")[0].head.weight.clone()),
    )
    scores = [record["dev_macro_f1"] for record in history]
    for epoch in range(1, len(scores)):
        is_better = scores[epoch] > max(scores[:epoch])
        assert torch.equal(states[epoch], states[epoch - 1]) != is_better
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]


def test_scores_of_dev_and_test_are_written_and_measured(train, make_judged, tmp_path):
    _, history = train()
    dev, test = make_judged(16, seed=9), make_judged(10, seed=4)
    dev.save(tmp_path / "splits" / "dev")
    test.pair_id_N[:] = [f"t{n}" for n in range(10)]
    test.save(tmp_path / "splits" / "test")
    write_scores(tmp_path / "model", tmp_path / "splits", str(tmp_path / "run"))
    rows = tables.read_table(str(tmp_path / "run"), tables.SCORES).to_pylist()
    assert [row["pair_id"] for row in rows] == [*dev.pair_id_N.tolist(), *test.pair_id_N.tolist()]
    assert all(row["label"] == LabelSchema.load("graded3").names[row["probs"].index(max(row["probs"]))] for row in rows)
    measured = measure_scores(str(tmp_path / "run"), tmp_path / "splits", LabelSchema.load("graded3"))
    assert measured["dev"]["macro_f1"] == pytest.approx(max(record["dev_macro_f1"] for record in history))
    assert measured["test"]["num_pairs"] == 10


@pytest.mark.parametrize(
    ("scores", "patience", "stops"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.6], 1, False),
        ([0.5, 0.5], 1, True),
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.4, 0.5], 2, True),
        ([0.5, 0.4, 0.3], None, False),
    ],
)
def test_training_stops_when_dev_gets_no_better(scores, patience, stops):
    assert is_enough([{"dev_macro_f1": score} for score in scores], patience) is stops
