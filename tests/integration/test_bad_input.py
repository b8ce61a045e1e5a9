"""Every kind of bad input gets a clear error or a reason, and loses nothing."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.annotate import AnnotateConfig
from jobs.annotate import run as annotate
from jobs.prepare import PrepareConfig, run
from raylib import tables
from raylib.errors import InputError, RunConflictError
from raylib.ray_session import ray_session

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"impressions": pa.int64(), "clicks": pa.int64()}


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with ray_session(num_cpus=2):
        yield


def row(**changes: Any) -> dict[str, Any]:
    good = {"query": "red shoes", "locale": "en", "item_id": "I1", "title": "Red shoes", "brand": None, "gold": None}
    return good | {"impressions": 1, "clicks": 0} | changes


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a log file; texts may be bytes that are no UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {}
    for name in rows[0]:
        values = [one[name].encode() if isinstance(one[name], str) else one[name] for one in rows]
        columns[name] = (
            pa.array(values, KINDS[name]) if name in KINDS else pa.array(values, pa.binary()).view(pa.string())
        )
    pq.write_table(pa.table(columns), path, compression="snappy", use_dictionary=False)
    return path


def prepare(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    settings = {"output": f"{tmp_path}/pairs", "input": f"{tmp_path}/logs", "label_schema": "esci", "num_buckets": 2}
    return run(PrepareConfig(**(settings | changes)))


def pairs(tmp_path: Path) -> list[dict[str, Any]]:
    return tables.read_table(f"{tmp_path}/pairs", tables.PAIRS).to_pylist()


def rejected(tmp_path: Path) -> list[dict[str, Any]]:
    return tables.read_table(f"{tmp_path}/pairs/rejected", tables.REJECTED).to_pylist()


@pytest.mark.usefixtures("ray")
def test_bad_rows_among_good_ones(tmp_path: Path) -> None:
    bad = [
        ("null_query", row(query=None)),
        ("blank_query", row(query="\u3000 ")),
        ("null_title", row(title=None)),
        ("blank_title", row(title="")),
        ("too_long", row(title="x" * 100_000)),
        ("bad_text", row(title=b"caf\xe9")),
        ("bad_text", row(query=b"\xff\xfe")),
        ("label_outside_schema", row(gold="Perfect")),
        ("null_item_id", row(item_id=None)),
        ("negative_count", row(clicks=-1)),
    ]
    good = [row(item_id=f"G{i}", gold="E") for i in range(5)] + [
        row(item_id="C", title="Red\x00shoes\r\nin\x1bleather")
    ]
    mixed = [one for pair in zip(good, bad, strict=False) for one in (pair[0], pair[1][1])] + [
        one for _, one in bad[6:]
    ]
    write(tmp_path / "logs/a.parquet", mixed)
    metrics = prepare(tmp_path)
    reasons = Counter(reason for reason, _ in bad)
    assert (metrics["rows_in"], metrics["rows_out"], metrics["rejected"]) == (16, 6, reasons)
    assert metrics["num_cleaned_rows"] == 1
    assert {one["item_id"]: one["title"] for one in pairs(tmp_path)}["C"] == "Red shoes in leather"
    assert Counter(one["reason"] for one in rejected(tmp_path)) == reasons
    (long,) = [json.loads(one["payload"]) for one in rejected(tmp_path) if one["reason"] == "too_long"]
    assert long["title"] == "x" * 100_000, "nothing of a rejected row is lost"
    titles = [json.loads(one["payload"])["title"] for one in rejected(tmp_path) if one["reason"] == "bad_text"]
    assert r"caf\xe9" in titles


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(("on_conflict", "gold"), [("majority", "Exact"), ("reject", None)])
def test_duplicates_with_contradicting_gold(tmp_path: Path, on_conflict: str, gold: str | None) -> None:
    write(tmp_path / "logs/a.parquet", [row(gold=label) for label in "EES"] + [row(item_id="I2", gold="C")])
    metrics = prepare(tmp_path, on_conflict=on_conflict)
    assert metrics["num_conflicting_pairs"] == 1
    assert {one["item_id"]: one["gold"] for one in pairs(tmp_path)} == ({"I1": gold} if gold else {}) | {
        "I2": "Complement"
    }
    assert metrics["rejected"] == ({} if gold else {"conflicting_gold": 3})


@pytest.mark.usefixtures("ray")
def test_a_corrupt_file_among_good_ones(tmp_path: Path) -> None:
    write(tmp_path / "logs/a.parquet", [row(item_id=f"A{i}") for i in range(10)])
    (tmp_path / "logs/b.parquet").write_bytes(b"PAR1" + b"\x00" * 1000)
    with pytest.raises(InputError, match=r"1 of 2 files are bad:\n.*b\.parquet: not a readable Parquet file"):
        prepare(tmp_path)
    metrics = prepare(tmp_path, output=f"{tmp_path}/skipped", on_bad_file="skip")
    assert (metrics["rows_in"], metrics["num_pairs"], metrics["num_bad_files"]) == (10, 10, 1)
    assert "b.parquet" in metrics["bad_files"][0]


@pytest.mark.usefixtures("ray")
def test_a_file_that_is_damaged_behind_a_good_footer(tmp_path: Path) -> None:
    write(tmp_path / "logs/a.parquet", [row(item_id=f"A{i}") for i in range(10)])
    path = write(tmp_path / "logs/b.parquet", [row(item_id=f"B{i}") for i in range(200)])
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"b\.parquet: damaged"):
        prepare(tmp_path)
    metrics = prepare(tmp_path, output=f"{tmp_path}/skipped", on_bad_file="skip")
    assert (metrics["rows_in"], metrics["rows_out"], metrics["skipped"]) == (210, 10, {"bad_file": 200})


def drop_title(table: pa.Table) -> pa.Table:
    return table.drop_columns(["title"])


def clicks_as_text(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("clicks"), "clicks", pa.array(["0"] * table.num_rows))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop_title, r"b\.parquet: missing column\(s\) title; columns found: query, locale, item_id, brand, gold"),
        (clicks_as_text, r"b\.parquet: wrong type: clicks is string, not an integer"),
        (None, "no such file or directory"),
        (lambda table: table.slice(0, 0), "empty: no row"),
    ],
)
def test_a_wrong_input_is_named_before_ray_starts(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table] | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.prepare.ray_session", lambda: 1 / 0)
    if change:
        path = write(tmp_path / "logs/b.parquet", [row()])
        pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(InputError, match=says):
        prepare(tmp_path)


@pytest.mark.usefixtures("ray")
def test_an_input_of_bad_rows_only_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    write(tmp_path / "logs/a.parquet", [row(title=None)] * 3)
    with pytest.raises(InputError, match=r"no good row among 3: \{'null_title': 3\}"):
        prepare(tmp_path)
    assert len(rejected(tmp_path)) == 3
    assert not (tmp_path / "pairs/_SUCCESS").exists()


def test_the_output_of_another_run_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "logs/a.parquet", [row()])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").write_text("mine")
    with pytest.raises(RunConflictError, match="no run directory"):
        prepare(tmp_path, output=f"{tmp_path}/notes")
    with pytest.raises(InputError):
        prepare(tmp_path, input=f"{tmp_path}/absent")  # leaves nothing but its config.yaml: it may be corrected
    prepare(tmp_path)
    with pytest.raises(RunConflictError, match="num_buckets: 2 there, 3 now"):
        prepare(tmp_path, num_buckets=3)


@pytest.mark.usefixtures("ray")
def test_a_full_disk_then_more_space(tmp_path: Path) -> None:
    """A real file system of 1 MB; with more room the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        logs = [
            row(query=f"query {i * 7919}", item_id=f"{i * 104_729}", title=f"{i * 15_485_863}") for i in range(50_000)
        ]
        write(tmp_path / "logs/a.parquet", logs)
        with pytest.raises(InputError, match=r"cannot write: .*No space left on device.*; free space"):
            prepare(tmp_path, output=f"{disk}/pairs")
        assert not (disk / "pairs/_SUCCESS").exists()
        assert {file.name for file in (disk / "pairs/shuffle").iterdir()} == {"plan.json"}, "no half-written file stays"
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert prepare(tmp_path, output=f"{disk}/pairs")["num_pairs"] == 50_000
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_no_model_at_the_path(tmp_path: Path) -> None:
    config = AnnotateConfig(output=f"{tmp_path}/rationales", pairs=f"{tmp_path}/pairs", model=f"{tmp_path}/no-model")
    with pytest.raises(InputError, match="no-model"):
        annotate(config)


def command(*words: str) -> tuple[int, str, float]:
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "jobs.prepare", *words], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stderr, time.monotonic() - started_s


def test_unknown_keys_end_with_exit_code_2_in_5_seconds(tmp_path: Path) -> None:
    (tmp_path / "prepare.yaml").write_text("inptu: logs\nlabel_schema: esci\nnum_buckets: four\n")
    code, text, wall_s = command("--config", f"{tmp_path}/prepare.yaml", "--output", f"{tmp_path}/pairs", "--sede", "1")
    assert (code, wall_s < 5) == (2, True), text
    for name in ("inptu", "num_buckets", "sede", "input"):
        assert f"\n  {name}: " in text
    assert not (tmp_path / "pairs").exists()


def test_a_wrong_input_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    code, text, _ = command("--input", f"{tmp_path}/no", "--output", f"{tmp_path}/pairs", "--label_schema", "esci")
    assert code == 1
    assert text.strip() == f"jobs.prepare: InputError: {tmp_path}/no: no such file or directory"
