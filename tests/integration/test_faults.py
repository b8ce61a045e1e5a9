"""Annotation under fire: drivers, engines and nodes are killed at random; the table equals an undisturbed run's.

pytest tests/integration/test_faults.py --kills 100    # the long form, `make faults`
"""

import json
import random
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from annotation_runs import WAIT_S, engines, finish, num_units, settings, start, table
from ray.cluster_utils import Cluster

from raylib import tables
from raylib.errors import RunConflictError
from raylib.runs import Run


class Nodes:
    """A Ray cluster on this machine: a head without cores and two nodes with one each."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 << 20})
        self.nodes = [self._start() for _ in range(2)]

    def _start(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=200 << 20)

    def scrape(self, counter: str) -> float:
        """A counter as Prometheus gets it, summed over what every node exports."""
        total = 0.0
        for node in self.cluster.list_all_nodes():
            with urllib.request.urlopen(f"http://{node.node_ip_address}:{node.metrics_export_port}/metrics") as page:
                lines = page.read().decode().splitlines()
            total += sum(float(line.split()[-1]) for line in lines if line.startswith(f"ray_{counter}_total{{"))
        return total

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
        output = Path(yaml.safe_load(config.read_text())["output"])
        next(output.glob("unit-*.parquet")).write_bytes(b"")  # as a disk that lost its last writes may leave it
        return start(yaml.safe_load(config.read_text()), config, nodes.cluster.address)
    return job


def test_a_pair_over_which_engines_die_is_rejected_and_the_others_are_answered(
    nodes: Nodes, whole: tuple[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--kills") < 10:
        pytest.skip("of the long form, `make faults`: six engines die one after the other")
    pairs, undisturbed = whole
    poison = tables.read_table(pairs, tables.PAIRS, ["pair_id"]).to_pylist()[1]["pair_id"]
    output = tmp_path / "run"
    changes = {"pairs_per_unit": 10, "engine": {**settings(pairs, output)["engine"], "num_engines": 1}}
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
    while not nodes.scrape("tricot_annotate_rejected"):  # exported every few seconds
        time.sleep(1)
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


def test_engines_that_hang_end_the_run_with_their_state(nodes: Nodes, whole: tuple[str, Path], tmp_path: Path) -> None:
    pairs, _ = whole
    output = tmp_path / "run"
    one = {"engine": {**settings(pairs, output)["engine"], "num_engines": 1}}
    limits = {**settings(pairs, output)["limits"], "stall_s": 15.0}
    job = start(settings(pairs, output, limits=limits, **one), tmp_path / "config.yaml", nodes.cluster.address)
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
