"""jobs.evaluate on written tables: the figures agree with scikit-learn, the report stands alone, bad input is named."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from jobs.evaluate import EvaluateConfig, run
from raylib import tables
from raylib.errors import ConfigError, InputError
from raylib.labels import LabelSchema

SCHEMA = LabelSchema.load("marketplace6")
WORDS = ("lamp", "shoe", "phone case", "kettle", "drill", "sofa")
ERRORS = {"user_intent": 0.35, "structured_analysis": 0.3, "business_rule": 0.4, "unified": 0.25}


def write_pairs(folder: Path, num_queries: int = 90, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for query in range(num_queries):
        locale, word = ("en", "es", "ja")[query % 3], WORDS[query % len(WORDS)]
        split = ("train", "train", "test", "dev")[query % 4]
        for item in range(6):
            gold = int(rng.choice(6, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05]))
            rows.append({
                "pair_id": f"{query:08x}{item:08x}", "bucket": query % 4, "query": f"{word} {query}",
                "item_id": f"i{item}", "title": f"{word} {SCHEMA.names[gold]} item {item} ランプ",
                "brand": None, "category": None, "attributes": None, "locale": locale,
                "impressions": 1000 // (query + 1), "clicks": 0,
                "gold": None if item == 5 else SCHEMA.names[gold], "split": split,
                "segment": tables.SEGMENTS[query // 30],
            })  # fmt: skip
    tables.write_parquet(f"{folder}/a.parquet", tables.PAIRS, [tables.rows_batch(rows, tables.PAIRS)])
    return rows


def write_scores(folder: Path, pairs: list[dict], share_right: float, seed: int) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    rows, predicted = [], {}
    for pair in pairs:
        if pair["split"] != "test":
            continue
        gold = SCHEMA.index(pair["gold"] or SCHEMA.names[0])
        top = gold if rng.random() < share_right else int(rng.integers(6))
        logits = rng.normal(size=6)
        logits[top] = logits.max() + rng.exponential(1.5)
        probs = np.exp(logits) / np.exp(logits).sum()
        predicted[pair["pair_id"]] = top
        rows.append(
            {"pair_id": pair["pair_id"], "probs": probs.tolist(), "label": SCHEMA.names[top], "score": 0.5, "tier": 2}
        )
    tables.write_parquet(f"{folder}/a.parquet", tables.SCORES, [tables.rows_batch(rows, tables.SCORES)])
    return predicted


def write_rationales(
    folder: Path, pairs: list[dict], perspectives: tuple[str, ...], splits: tuple[str, ...], skill: float = 0.0
) -> None:
    rng = np.random.default_rng(len(perspectives))
    rows = []
    for pair in (pair for pair in pairs if pair["split"] in splits):
        for k, perspective in enumerate(perspectives):
            blind = rng.random() < 0.5 and SCHEMA.index(pair["gold"] or SCHEMA.names[0]) % 3 == k
            for sample in range(5 if perspective != "unified" else 1):
                draw = rng.random()
                wrong = draw < ERRORS[perspective] - skill or blind
                label = SCHEMA.names[int(rng.integers(6))] if wrong else pair["gold"]
                error = "no_label_line" if draw < 0.02 else None
                rows.append({
                    "pair_id": pair["pair_id"], "bucket": pair["bucket"], "perspective": perspective, "sample": sample,
                    "rationale": "because", "label": None if error else label, "error": error, "finish_reason": "stop",
                    "prompt_tokens": 10, "generated_tokens": 5, "fingerprint": "f",
                })  # fmt: skip
    tables.write_parquet(f"{folder}/a.parquet", tables.RATIONALES, [tables.rows_batch(rows, tables.RATIONALES)])


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, dict, list[dict], dict[str, int]]:
    pairs = write_pairs(tmp_path / "pairs")
    predicted = write_scores(tmp_path / "bert", pairs, 0.5, 1)
    write_scores(tmp_path / "gat", pairs, 0.6, 2)
    perspectives = ("user_intent", "structured_analysis", "business_rule")
    write_rationales(tmp_path / "base", pairs, perspectives, ("train", "test"))
    write_rationales(tmp_path / "base-unified", pairs, ("unified",), ("train", "test"))
    write_rationales(tmp_path / "sft-unified", pairs, ("unified",), ("test",), 0.1)
    rejected = {"wrong_label": 15, "no_label": 5}
    curate = {"job": "curate", "rows_in": 100, "rows_out": 80, "rejected": rejected, "skipped": {}, "wall_s": 1.5}
    (tmp_path / "curate").mkdir()
    (tmp_path / "curate" / "metrics.json").write_text(json.dumps(curate))
    (tmp_path / "curate" / "_SUCCESS").touch()
    settings = {
        "output": f"{tmp_path}/out",
        "pairs": f"{tmp_path}/pairs",
        "label_schema": "marketplace6",
        "students": {"BERT": f"{tmp_path}/bert", "LRKD GAT": f"{tmp_path}/gat"},
        "teachers": {"base": [f"{tmp_path}/base", f"{tmp_path}/base-unified"], "SFT": [f"{tmp_path}/sft-unified"]},
        "runs": {"curate": f"{tmp_path}/curate"},
        "num_bootstrap": 200,
    }
    return tmp_path, settings, pairs, predicted


def test_figures_and_report(inputs, capsys):
    folder, settings, pairs, predicted = inputs
    metrics = run(EvaluateConfig.from_mapping(settings, "test"))
    test = [pair for pair in pairs if pair["split"] == "test" and pair["gold"]]
    assert metrics["num_pairs"] == metrics["rows_out"] == len(test)
    assert metrics["rows_in"] == len(pairs)
    gold = [SCHEMA.index(pair["gold"]) for pair in test]
    bert = metrics["students"]["BERT"]
    expected = f1_score(gold, [predicted[pair["pair_id"]] for pair in test], average="macro")
    assert bert["macro_f1"]["value"] == pytest.approx(expected)
    assert bert["macro_f1"]["low"] < expected < bert["macro_f1"]["high"]
    assert metrics["baselines"]["TF-IDF + logistic regression"]["accuracy"]["value"] > 0.9  # titles spell the class
    together = metrics["teachers"]["base"]["test"]["together"]
    assert together["best_single"]["value"] < together["pass_of_best"]["value"] <= 1
    assert together["best_single"]["value"] < together["oracle"]["value"] <= 1
    assert list(metrics["teachers"]["SFT"]) == ["test"]
    assert sum(s["num_pairs"] for s in bert["slices"]["traffic"].values()) == len(test)

    html = (folder / "out" / "report.html").read_text()
    assert "<script" not in html
    assert not re.search(r'(?:src|href)="(?!#)', html.replace("xlink:href", "href"))
    assert html.count("<svg") == 7  # two confusions, reliability, stages, tries, recall, rejects
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert json.loads((folder / "out" / "provenance.json").read_text())["inputs"]["pairs"]["fingerprint"] in html
    printed = capsys.readouterr().out
    assert "LRKD GAT" in printed
    assert "oracle of 3 perspectives" in printed
    assert "NaN" not in (folder / "out" / "metrics.json").read_text()
    assert run(EvaluateConfig.from_mapping(settings, "test")) == metrics


def test_absent_sections_are_named(inputs):
    folder, settings, _, _ = inputs
    run(EvaluateConfig.from_mapping({**settings, "students": {}, "teachers": {}, "runs": {}}, "test"))
    html = (folder / "out" / "report.html").read_text()
    for sentence in ("No students were given.", "No teachers were given.", "No runs were given."):
        assert sentence in html


def test_a_pair_without_a_score_is_skipped_for_all(inputs):
    folder, settings, pairs, _ = inputs
    (folder / "gat" / "a.parquet").unlink()
    judged = [pair for pair in pairs if pair["gold"]]
    write_scores(folder / "gat", judged[: len(judged) // 2], 0.6, 2)
    metrics = run(EvaluateConfig.from_mapping(settings, "test"))
    assert metrics["skipped"]["not_scored_by_every_student"] == metrics["students"]["LRKD GAT"]["num_unscored"] > 0
    assert metrics["students"]["BERT"]["num_pairs"] == metrics["students"]["LRKD GAT"]["num_pairs"]


def test_bad_input_is_named(inputs):
    folder, settings, _, _ = inputs
    cases = [
        ({"pairs": f"{folder}/nowhere"}, InputError, "nowhere"),
        ({"students": {"x": f"{folder}/pairs"}}, InputError, "missing column"),
        ({"label_schema": "esci"}, InputError, "outside the label schema"),
        ({"students": {"majority class": f"{folder}/bert"}}, ConfigError, "baseline"),
        ({"teachers": {"t": [f"{folder}/base", f"{folder}/base"]}}, InputError, "answered twice"),
        ({"runs": {"r": f"{folder}/pairs"}}, InputError, "holds no finished run"),
    ]
    for i, (change, error, text) in enumerate(cases):
        config = EvaluateConfig.from_mapping({**settings, **change, "output": f"{folder}/out{i}"}, "test")
        with pytest.raises(error, match=text):
            run(config)
