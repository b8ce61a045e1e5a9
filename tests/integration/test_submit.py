"""Jobs submitted to a real head process with token authentication: log, exit code, stop, resume."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib import tables

ROOT = Path(__file__).resolve().parents[2]
SUBMIT = ROOT / "cluster" / "submit.py"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """A head process of its own: temp dir, ports, token."""

    def __init__(self, folder: Path) -> None:
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        port, dashboard, agent, agent_grpc, env_agent, metrics, client = free_ports(7)
        self.token = token.read_text()
        self.address = f"http://127.0.0.1:{dashboard}"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        command = [
            *("ray", "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
            *(f"--port={port}", "--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={folder}/ray"),
            *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
            *(f"--runtime-env-agent-port={env_agent}", f"--metrics-export-port={metrics}"),
            f"--ray-client-server-port={client}",
        ]
        self.log = open(folder / "head.log", "w")  # noqa: SIM115 - open as long as the process lives
        self.process = subprocess.Popen(command, env=self.env, stdout=self.log, stderr=self.log, start_new_session=True)
        try:
            self.wait_until_up()
        except BaseException:
            self.stop()
            raise

    def status(self, token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            request = urllib.request.Request(f"{self.address}/api/jobs/", headers=headers)
            return int(urllib.request.urlopen(request, timeout=5).status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def wait_until_up(self) -> None:
        for _ in range(120):
            if self.status(self.token) == 200:
                return
            assert self.process.poll() is None, Path(self.log.name).read_text()
            time.sleep(0.5)
        raise AssertionError(Path(self.log.name).read_text())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)
        self.log.close()

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SUBMIT), *words, "--address", self.address]
        for _ in range(20):
            done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120)
            if "No available agent" not in done.stderr:  # the head answers a little before its agent does
                break
            time.sleep(1)
        return done


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="tricot-", dir="/tmp"))  # short: socket paths have at most 107 characters
    running = Cluster(folder)
    yield running
    running.stop()
    shutil.rmtree(folder)


def write_logs(folder: Path, num_files: int, num_rows: int) -> Path:
    folder.mkdir()
    table = pa.table(
        {
            "query": [f"query {i % 5000}" for i in range(num_rows)],
            "locale": ["en"] * num_rows,
            "item_id": [f"item {i}" for i in range(num_rows)],
            "title": [f"Title of item {i}" for i in range(num_rows)],
            "impressions": [1] * num_rows,
            "clicks": [0] * num_rows,
        }
    )
    pq.write_table(table, folder / "log-00000.parquet")
    for i in range(1, num_files):
        os.link(folder / "log-00000.parquet", folder / f"log-{i:05d}.parquet")
    return folder


def test_log_and_exit_code_are_the_jobs(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.status(None) == 401, "the job API must not answer without the token"
    logs, config = write_logs(tmp_path / "logs", 2, 100), tmp_path / "prepare.yaml"
    config.write_text(f"input: {logs}\nlabel_schema: esci\nnum_buckets: 2\n")

    good = cluster.submit("prepare", "--config", str(config), "--output", str(tmp_path / "pairs"))
    assert good.returncode == 0, good.stderr
    assert "prepare: 200 rows -> 100 pairs" in good.stdout

    bad = cluster.submit("prepare", "--config", str(config), "--output", str(tmp_path / "other"), "--num_bukets", "4")
    assert bad.returncode == 2
    assert "num_bukets: unknown setting" in bad.stdout
    assert not (tmp_path / "other").exists()

    absent = cluster.submit("--stop", "raysubmit_absent")
    assert (absent.returncode, "cannot stop raysubmit_absent" in absent.stderr) == (1, True)


def test_a_stopped_job_resumes(cluster: Cluster, tmp_path: Path) -> None:
    logs, output = write_logs(tmp_path / "logs", 40, 20_000), tmp_path / "pairs"
    words = ["prepare", "--input", str(logs), "--label_schema", "esci", "--num_buckets", "4", "--output", str(output)]
    command = [sys.executable, str(SUBMIT), *words, "--address", cluster.address]
    submitted = subprocess.Popen(command, env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(1200):
        if len(list(output.glob("shuffle/map-*.json"))) >= 4:
            break
        time.sleep(0.05)
    submitted.send_signal(signal.SIGINT)  # Ctrl-C
    log, _ = submitted.communicate(timeout=60)
    assert submitted.returncode == 130, log
    assert "is STOPPED" in log
    num_complete = len(list(output.glob("shuffle/map-*.json")))
    assert 4 <= num_complete < 40
    assert not (output / "_SUCCESS").exists()

    resumed = cluster.submit(*words)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    kept = next(line for line in resumed.stdout.splitlines() if "were complete already" in line)
    assert int(kept.split()[1]) >= num_complete
    metrics = json.loads((output / "metrics.json").read_text())
    assert (metrics["rows_in"], metrics["num_pairs"]) == (40 * 20_000, 20_000)
    pairs = tables.read_table(str(output), tables.PAIRS)
    assert pairs.num_rows == 20_000
    assert set(pairs.column("impressions").to_pylist()) == {40}
    assert not (output / "shuffle").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prepare", "--address", "http://127.0.0.1:9"], "no job API at http://127.0.0.1:9"),
        (["prepair"], "invalid choice: 'prepair'"),
        (["prepare", "--stop", "raysubmit_1"], "either a job to submit or --stop"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(words: list[str], says: str) -> None:
    done = subprocess.run([sys.executable, str(SUBMIT), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert says in done.stderr
