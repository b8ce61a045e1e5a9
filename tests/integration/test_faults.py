"""Annotation under fire: drivers, engines and nodes are killed at random; the table equals an undisturbed run's.

pytest tests/integration/test_faults.py --kills 100    # the long form, `make faults`
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from raylib import tables
from raylib.errors import RunConflictError
from raylib.runs import Run

NUM_PAIRS = 60
WAIT_S = 240


def settings(pairs: str, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output": str(output),
        "pairs": pairs,
        "perspectives": ["user_intent", "business_rule"],
        "samples": 2,
        "num_few_shots": 1,
        "max_tokens": 96,
        "pairs_per_unit": 3,
        "limits": {"unparsed": 1.0, "engine": 1.0, "max_attempts": 2},
        "engine": {
            "num_engines": 2,
            "enforce_eager": True,
            "dtype": "float32",
            "max_num_seqs": 16,
            "kv_cache_memory_bytes": 32 << 20,
            "max_model_len": 768,
        },
        **changes,
    }


class Nodes:
    """A Ray cluster on this machine: a head without cores and two nodes with one each."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 << 20})
        self.nodes = [self._start() for _ in range(2)]

    def _start(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=200 << 20)

    def kill(self, which: int) -> None:
        """Kill a node without grace, with all that runs on it, and start another."""
        self.cluster.remove_node(self.nodes[which], allow_graceful=False)
        self.nodes[which] = self._start()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    assert not ray.is_initialized()
    started = Nodes()
    yield started
    started.cluster.shutdown()


def start(config: dict[str, Any], path: Path, address: str) -> subprocess.Popen[str]:
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "jobs.annotate", "--config", str(path)]
    environment = {**os.environ, "RAY_ADDRESS": address}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(job: subprocess.Popen[str]) -> str:
    said, _ = job.communicate(timeout=WAIT_S)
    assert job.returncode == 0, said[-4000:]
    return said


def engines() -> list[psutil.Process]:
    """The actors that hold an engine, on all nodes."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "ray::MapWorker(MapBatches(Annotator))" in " ".join(process.info["cmdline"] or ()):
            found.append(process)
    return found


def table(output: Path) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Rows and rejects, sorted by what names them."""
    rows = tables.read_table(str(output), tables.RATIONALES)
    rows = rows.sort_by([(name, "ascending") for name in ("pair_id", "perspective", "sample")])
    rejects = tables.read_table(f"{output}/rejected", tables.REJECTED).to_pylist() if rejected(output) else []
    return rows, sorted(rejects, key=lambda row: str(row["payload"]))


def rejected(output: Path) -> bool:
    return any((output / "rejected").glob("*.parquet"))


@pytest.fixture(scope="module")
def whole(nodes: Nodes, write_pairs: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A pairs table and the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    pairs = write_pairs(folder / "pairs", NUM_PAIRS)
    finish(start(settings(pairs, folder / "run"), folder / "config.yaml", nodes.cluster.address))
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["rows_in"] == NUM_PAIRS * 2 * 2
    assert metrics["rows_out"] > NUM_PAIRS, "too few answers parse to compare anything"
    return pairs, folder / "run"


def test_whatever_is_killed_the_table_is_that_of_an_undisturbed_run(
    nodes: Nodes, whole: tuple[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    num_kills = request.config.getoption("--kills")
    dice = random.Random(num_kills)
    victims = ["driver", "engine", "node"] * (num_kills // 3) + ["engine"] * (num_kills % 3)
    dice.shuffle(victims)
    pairs, undisturbed = whole
    round_ = 0
    while victims:
        output = tmp_path / f"run-{round_}"
        job = start(settings(pairs, output), tmp_path / "config.yaml", nodes.cluster.address)
        killed: list[str] = []
        while victims and (units := num_units(output, job)) is not None:
            if units <= len(killed):  # let something get done between two kills
                time.sleep(0.05)
                continue
            time.sleep(dice.uniform(0.0, 0.5))
            victim = victims.pop()
            job = strike(victim, job, nodes, tmp_path / "config.yaml", dice)
            killed.append(victim)
        said = finish(job)
        assert table(output)[0].equals(table(undisturbed)[0]), f"after {killed}: {said[-2000:]}"
        assert table(output)[1] == table(undisturbed)[1], f"after {killed}: {said[-2000:]}"
        print(f"round {round_}: survived {', '.join(killed)}")
        round_ += 1


def num_units(output: Path, job: subprocess.Popen[str]) -> int | None:
    """Finished units, None when the job has ended."""
    return None if job.poll() is not None else len(list(output.glob("unit-*.parquet")))


def strike(
    victim: str, job: subprocess.Popen[str], nodes: Nodes, config: Path, dice: random.Random
) -> subprocess.Popen[str]:
    """Kill one victim; returns the job, which is another process when the driver was killed."""
    alive = engines()
    if victim == "engine" and alive:
        dice.choice(alive).send_signal(signal.SIGKILL)
    elif victim == "node":
        nodes.kill(dice.randrange(2))
    else:
        job.kill()
        job.communicate()
        return start(yaml.safe_load(config.read_text()), config, nodes.cluster.address)
    return job


def test_a_pair_over_which_engines_die_is_rejected_and_the_others_are_answered(
    nodes: Nodes, whole: tuple[str, Path], tmp_path: Path
) -> None:
    pairs, undisturbed = whole
    poison = tables.read_table(pairs, tables.PAIRS, ["pair_id"]).to_pylist()[7]["pair_id"]
    output = tmp_path / "run"
    changes = {"pairs_per_unit": 20, "engine": {**settings(pairs, output)["engine"], "num_engines": 1}}
    job = start(settings(pairs, output, **changes), tmp_path / "config.yaml", nodes.cluster.address)
    over = threading.Event()
    killer = threading.Thread(target=kill_engines_over, args=(poison, output / "attempts" / "unit-0000000.json", over))
    killer.start()
    try:
        finish(job)
    finally:
        over.set()
        killer.join()
    rows, rejects = table(output)
    assert [(row["reason"], json.loads(row["payload"])["pair_id"]) for row in rejects if row["reason"] == "engine"] == [
        ("engine", poison)
    ] * 4
    others = table(undisturbed)[0].to_pylist()
    assert rows.to_pylist() == [row for row in others if row["pair_id"] != poison]


def kill_engines_over(poison: str, file: Path, over: threading.Event) -> None:
    """Play a pair that kills its engine: first while its unit is worked on, then whenever it is in flight alone."""
    killed = 0
    while not over.wait(0.02):
        try:
            attempt = json.loads(file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        in_flight = attempt["deaths"].get(poison, 0)
        if attempt["begun"] > killed and (attempt["begun"] <= 2 or in_flight > attempt["begun"] - 3):
            for process in engines():
                process.send_signal(signal.SIGKILL)
            killed = attempt["begun"]


def test_engines_that_hang_end_the_run_with_their_state_and_it_resumes(
    nodes: Nodes, whole: tuple[str, Path], tmp_path: Path
) -> None:
    pairs, undisturbed = whole
    output = tmp_path / "run"
    limits = {**settings(pairs, output)["limits"], "stall_s": 30.0}
    job = start(settings(pairs, output, limits=limits), tmp_path / "config.yaml", nodes.cluster.address)
    while not num_units(output, job):
        assert job.poll() is None
        time.sleep(0.02)
    hanging = engines()
    for process in hanging:
        process.send_signal(signal.SIGSTOP)
    said, _ = job.communicate(timeout=WAIT_S)
    for process in hanging:
        process.kill()
    assert job.returncode == 1, said[-2000:]
    assert "StalledError" in said
    state = json.loads((output / "stalled.json").read_text())
    assert {report["pid"] for report in state["engines"].values()} >= {process.pid for process in hanging}
    assert not (output / "_SUCCESS").exists()
    next(output.glob("unit-*.parquet")).write_bytes(b"")  # as a disk that lost its last writes may leave it
    finish(start(settings(pairs, output), tmp_path / "config.yaml", nodes.cluster.address))
    assert table(output) == table(undisturbed)


def test_a_second_driver_on_the_run_is_refused(whole: tuple[str, Path], tmp_path: Path) -> None:
    from jobs.annotate import AnnotateConfig

    pairs, _ = whole
    path = tmp_path / "config.yaml"
    job = start(settings(pairs, tmp_path / "run"), path, "127.0.0.1:1")  # waits for a cluster that is not there
    while not (tmp_path / "run" / "provenance.json").exists():
        assert job.poll() is None
        time.sleep(0.05)
    try:
        with pytest.raises(RunConflictError, match=f"pid {job.pid} "):
            Run(str(tmp_path / "run"), "annotate", AnnotateConfig.from_file(path))
    finally:
        job.kill()
        job.communicate()
