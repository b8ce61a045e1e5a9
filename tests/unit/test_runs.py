import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from raylib import tables
from raylib.config import JobConfig, Section
from raylib.errors import InputError, RowCountError, RunConflictError
from raylib.runs import Run, fingerprint, require_done


class Nested(Section):
    rate: float = 0.5


class Demo(JobConfig):
    """A job for these tests."""

    output: str
    size: int = 1
    nested: Nested = Nested()


def opened(folder: Path, job: str = "demo", size: int = 1, rate: float = 0.5) -> Run:
    return Run(str(folder), job, Demo(output=str(folder), size=size, nested=Nested(rate=rate)))


def rejected_row(reason: str) -> dict[str, object]:
    return {"stage": "demo", "reason": reason, "detail": "d", "payload": "{}", "attempt": 0}


def test_same_configuration_resumes_then_is_a_no_op(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    assert not run.is_done
    again = opened(tmp_path / "run")
    assert not again.is_done
    metrics = again.finish(10, 7, {"bad": 2}, {"old": 1}, num_pairs=3)
    done = opened(tmp_path / "run")
    assert done.is_done
    assert done.metrics() == metrics
    assert (metrics["rows_in"], metrics["rejected"], metrics["num_pairs"]) == (10, {"bad": 2}, 3)


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    opened(tmp_path / "run").write_provenance()
    with pytest.raises(RunConflictError) as raised:
        opened(tmp_path / "run", size=2, rate=0.25)
    message = str(raised.value)
    assert "size: 1 there, 2 now" in message
    assert "nested.rate: 0.5 there, 0.25 now" in message
    assert "output" not in message.replace("choose another output directory", "")
    with pytest.raises(RunConflictError, match="job: 'demo' there, 'other' now"):
        opened(tmp_path / "run", job="other")


def test_a_run_that_wrote_nothing_yet_may_be_started_with_other_settings(tmp_path: Path) -> None:
    opened(tmp_path / "run")
    opened(tmp_path / "run", size=2).write_provenance()
    with pytest.raises(RunConflictError, match="size: 2 there, 1 now"):
        opened(tmp_path / "run")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(RunConflictError, match=r"holds files but no config\.yaml"):
        opened(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_lost_rows_fail_the_job(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    with pytest.raises(RowCountError, match="10 rows in, but 7 out"):
        run.finish(10, 7, {"bad": 2}, {})
    assert not (tmp_path / "run/_SUCCESS").exists()
    with pytest.raises(InputError, match="unfinished"):
        require_done(run.uri)
    run.finish(10, 7, {"bad": 2}, {"old": 1})
    require_done(run.uri)


def test_a_plain_folder_needs_no_success_mark(tmp_path: Path) -> None:
    require_done(str(tmp_path))
    (tmp_path / "config.yaml").write_text("job: demo")  # now it is a run directory, and needs one
    with pytest.raises(InputError, match="unfinished"):
        require_done(str(tmp_path))


def test_rejected_rows_are_written_beside_the_table_and_counted(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    counts = run.write_rejected("part", [rejected_row("a"), rejected_row("b"), rejected_row("a")])
    assert counts == {"a": 2, "b": 1}
    assert not run.write_rejected("none", [])
    schema = pa.schema([("id", pa.int64())])
    run.write_table("part", schema, [pa.table({"id": [1, 2]})])
    assert tables.read_table(run.uri, schema).num_rows == 2
    assert tables.read_table(f"{run.uri}/rejected", tables.REJECTED).num_rows == 3


def test_provenance_names_versions_and_inputs(tmp_path: Path) -> None:
    source = tmp_path / "input.parquet"
    source.write_bytes(b"x")
    run = opened(tmp_path / "run")
    run.write_provenance({"logs": str(source)}, prompt_hash="abc")
    record = json.loads((tmp_path / "run/provenance.json").read_text())
    assert record["inputs"]["logs"] == {"path": str(source), "fingerprint": fingerprint(str(source))}
    assert record["prompt_hash"] == "abc"
    assert "pyarrow" in record["versions"]
    assert record["commit"]


def test_the_fingerprint_notices_a_changed_file(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(b"one")
    os.utime(file, ns=(0, 0))
    before = fingerprint(str(tmp_path))
    assert fingerprint(str(tmp_path)) == before
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 10**9))
    assert fingerprint(str(tmp_path)) != before


HOLDER = """
import sys
from tests.unit.test_runs import opened, Path
opened(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_on_an_unfinished_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunConflictError, match=f"pid {holder.pid} on .* is working on this run"):
            opened(tmp_path / "run")
        holder.kill()
    run = opened(tmp_path / "run")
    run.finish(0, 0, {}, {})
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"config.yaml", "metrics.json", "_SUCCESS"}


class Adjustable(Demo):
    """A job of which one section may change."""

    adjustable = ("nested",)


def test_adjustable_settings_may_change_in_an_unfinished_run_and_the_new_ones_are_stored(tmp_path: Path) -> None:
    Run(str(tmp_path), "demo", Adjustable(output=str(tmp_path))).write_provenance()
    Run(str(tmp_path), "demo", Adjustable(output=str(tmp_path), nested=Nested(rate=0.9)))
    assert "rate: 0.9" in (tmp_path / "config.yaml").read_text()
    with pytest.raises(RunConflictError, match="size"):
        Run(str(tmp_path), "demo", Adjustable(output=str(tmp_path), size=2))
