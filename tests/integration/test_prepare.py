"""jobs.prepare on real Ray: both formats, accounting, resume after a kill."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.prepare import PrepareConfig, run
from raylib import tables
from raylib.logs.query_key import canonical, near_keys
from raylib.ray_session import ray_session

ROOT = Path(__file__).resolve().parents[2]
ESCI = ROOT.parent / "shared" / "data" / "esci"


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with ray_session(num_cpus=2):
        yield


def prepare(output: Path, logs: Path, **changes: Any) -> dict[str, Any]:
    settings = {"label_schema": "marketplace6", "num_buckets": 4} | changes
    return run(PrepareConfig(output=str(output), input=str(logs), **settings))


def write_logs(folder: Path, num_files: int = 3, num_rows: int = 4000) -> Path:
    """Rows with repeated pairs, some judged, every 100th without a title."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for number in range(num_files):
        query, item = draws.integers(0, 60, num_rows), draws.integers(0, 20, num_rows)
        table = {
            "query": [f"{'Query' if i % 2 else 'query'} {q}" for i, q in enumerate(query)],
            "locale": ["en"] * num_rows,
            "item_id": [f"item {i}" for i in item],
            "title": [None if i % 100 == 0 else f"Title of {item[i]}" for i in range(num_rows)],
            "position": pa.array([1] * num_rows, pa.int32()),
            "impressions": [1] * num_rows,
            "clicks": draws.integers(0, 2, num_rows),
            "gold": ["Brand Mismatch" if q % 3 else None for q in query],
        }
        pq.write_table(pa.table(table), folder / f"log-{number}.parquet")
    return folder


def content(output: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(output.glob("*.parquet")):
        digest.update(file.name.encode() + repr(pq.read_table(file).to_pylist()).encode())
    return digest.hexdigest()


@pytest.mark.usefixtures("ray")
def test_pairs_are_unique_add_up_and_are_split_by_query(tmp_path: Path) -> None:
    logs, output = write_logs(tmp_path / "logs"), tmp_path / "pairs"
    metrics = prepare(output, logs, dev_share=0.2, test_share=0.3)
    source = pa.concat_tables([pq.read_table(file) for file in sorted(logs.glob("*"))]).to_pylist()
    good = [row for row in source if row["title"]]
    assert (metrics["rows_in"], metrics["rows_out"], metrics["rejected"]) == (12_000, len(good), {"null_title": 120})

    pairs = tables.read_table(str(output), tables.PAIRS).to_pylist()
    expected: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in good:
        expected[row["query"], row["item_id"]].update(impressions=1, clicks=row["clicks"])
    found = {(row["query"], row["item_id"]): row for row in pairs}
    assert len(pairs) == len(found) == len(expected) == metrics["num_pairs"]
    assert all(found[key][name] == total for key, totals in expected.items() for name, total in totals.items())
    assert all((row["gold"] is None) == (int(row["query"].split()[1]) % 3 == 0) for row in pairs)
    assert metrics["num_judged_pairs"] == sum(row["gold"] is not None for row in pairs)

    places = defaultdict(set)
    for row in pairs:
        places[canonical(row["query"])].add((row["split"], row["bucket"]))
    assert all(len(place) == 1 for place in places.values()), "a query has one split and one bucket"
    assert Counter(row["split"] for row in pairs) == {name: metrics[f"num_{name}"] for name in tables.SPLITS}
    assert min(metrics[f"num_{name}"] for name in tables.SPLITS) > 0
    for file in output.glob("bucket-*.parquet"):
        assert set(pq.read_table(file).column("bucket").to_pylist()) <= {int(file.stem[-5:])}
    assert len({row["pair_id"] for row in pairs}) == len(pairs)
    traffic: Counter[str] = Counter()
    for row in pairs:
        traffic[row["segment"]] += row["impressions"]
    assert all(abs(traffic[name] / len(good) - 1 / 3) < 0.1 for name in tables.SEGMENTS), "thirds of the impressions"

    rejected = tables.read_table(f"{output}/rejected", tables.REJECTED).to_pylist()
    assert Counter(row["reason"] for row in rejected) == {"null_title": 120}
    assert not (output / "shuffle").exists()
    assert prepare(output, logs, dev_share=0.2, test_share=0.3) == metrics, "a finished run is not done again"


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("on_near_query", ["reject", "count"])
def test_no_near_identical_query_crosses_the_splits(tmp_path: Path, on_near_query: str) -> None:
    words = ["blender", "blnder", "kettle", "ketle", "camera", "camara", "Cámaras", "vacuum", "vaccum", "sneaker"]
    queries = [f"{color} {word}" for word in words for color in ("red", "blue", "green", "pink", "black", "white")]
    table = {"query": queries, "locale": ["en"] * 60, "item_id": ["i"] * 60, "title": ["t"] * 60}
    (tmp_path / "logs").mkdir()
    pq.write_table(pa.table(table | {"impressions": [1] * 60, "clicks": [0] * 60}), tmp_path / "logs/log.parquet")
    shares = {"dev_share": 0.3, "test_share": 0.3}
    metrics = prepare(tmp_path / "pairs", tmp_path / "logs", on_near_query=on_near_query, **shares)
    pairs = tables.read_table(str(tmp_path / "pairs"), tables.PAIRS).to_pylist()
    query_K, key_K = near_keys(pa.array([row["query"] for row in pairs]))
    splits_at = defaultdict(set)
    for query, key in zip(query_K.tolist(), key_K.tolist(), strict=True):
        splits_at[key].add(pairs[query]["split"])
    assert metrics["num_near_queries"] > 5
    assert any(len(splits) > 1 for splits in splits_at.values()) == (on_near_query == "count")
    assert (metrics["rejected"].get("near_identical_query", 0) == 0) == (on_near_query == "count")
    example = metrics["near_examples"][0]
    one, other = (set(near_keys(pa.array([example[name]]))[1].tolist()) for name in ("query", "near_query"))
    assert one & other
    assert tables.SPLITS.index(example["split"]) < tables.SPLITS.index(example["near_split"])


@pytest.mark.usefixtures("ray")
def test_an_interrupted_run_keeps_what_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = write_logs(tmp_path / "logs")
    prepare(tmp_path / "whole", logs)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raylib.logs.shuffle._account", die)  # after all buckets, before the accounts
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "resumed", logs)
    monkeypatch.undo()
    lost = [tmp_path / "resumed" / name for name in ("shuffle/bucket-00002.json", "bucket-00002.parquet")]
    lost += [tmp_path / "resumed/shuffle/map-00001.json"]
    for file in lost:
        file.unlink()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "resumed").glob("bucket-*.parquet")}
    metrics = prepare(tmp_path / "resumed", logs)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")
    whole = json.loads((tmp_path / "whole/metrics.json").read_text())
    times = ("wall_s", "shuffle_s")
    assert {n: metrics[n] for n in metrics if n not in times} == {n: whole[n] for n in whole if n not in times}


def test_a_killed_job_resumes_to_the_same_table(tmp_path: Path) -> None:
    """kill -9 of the driver while tasks run; the second call finishes what is left."""
    logs = write_logs(tmp_path / "logs", num_files=1, num_rows=30_000)
    for number in range(1, 40):
        os.link(logs / "log-0.parquet", logs / f"log-{number}.parquet")
    output = tmp_path / "pairs"
    command = [sys.executable, "-m", "jobs.prepare", "--input", str(logs), "--output", str(output)]
    command += ["--label_schema", "marketplace6", "--num_buckets", "2"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(output.glob("shuffle/map-*.json"))) < 3 and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (output / "_SUCCESS").exists()
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    assert "map_unit tasks were complete already" in second.stdout
    metrics = json.loads((output / "metrics.json").read_text())
    assert (metrics["rows_in"], metrics["rejected"]) == (40 * 30_000, {"null_title": 40 * 300})
    pairs = tables.read_table(str(output), tables.PAIRS)
    assert pairs.num_rows == metrics["num_pairs"]
    assert sum(pairs.column("impressions").to_pylist()) == metrics["rows_out"]


@pytest.mark.usefixtures("ray")
def test_a_changed_input_is_noticed_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raylib.errors import InputError

    logs = write_logs(tmp_path / "logs", num_files=2, num_rows=50)
    monkeypatch.setattr("raylib.logs.shuffle._account", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(tmp_path / "pairs", logs)
    monkeypatch.undo()
    (logs / "log-1.parquet").unlink()
    with pytest.raises(InputError, match="the input has changed since this run began"):
        prepare(tmp_path / "pairs", logs)


@pytest.mark.usefixtures("ray")
@pytest.mark.skipif(not ESCI.exists(), reason=f"the ESCI subset is not at {ESCI}")
def test_the_published_esci_release(tmp_path: Path) -> None:
    metrics = prepare(tmp_path / "pairs", ESCI, format="esci", label_schema="esci", dev_share=0.1)
    pairs = tables.read_table(str(tmp_path / "pairs"), tables.PAIRS).to_pylist()
    examples = pq.read_table(ESCI / "shopping_queries_dataset_examples.parquet").to_pylist()
    assert metrics["rows_in"] == metrics["num_pairs"] == len(examples) == 6427
    assert metrics["num_test"] == 1359
    assert metrics["num_train"] + metrics["num_dev"] == 5068
    assert 0 < metrics["num_dev"] < 1000
    names = {"E": "Exact", "S": "Substitute", "C": "Complement", "I": "Irrelevant"}
    published = {
        (row["product_locale"], row["product_id"], row["esci_label"], row["split"] == "test") for row in examples
    }
    codes = {name: code for code, name in names.items()}
    found = {(row["locale"], row["item_id"], codes[row["gold"]], row["split"] == "test") for row in pairs}
    assert found == published
    assert Counter(row["locale"] for row in pairs) == {"us": 5777, "jp": 372, "es": 278}
