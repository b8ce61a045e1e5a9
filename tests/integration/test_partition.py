"""A Ray cluster on three hosts with a network between them, which are network namespaces; one host is cut off."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from annotation_runs import WAIT_S, finish, num_units, settings, start, table

PORT = 6399
BIN = Path(sys.executable).parent
VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PATH": f"{BIN}:{os.environ['PATH']}",
    # a dead link is noticed after seconds; without the keep-alives a driver waits for it for ever
    **{f"RAY_health_check_{name}": value for name, value in (("initial_delay_ms", "2000"), ("period_ms", "1000"))},
    **{f"RAY_health_check_{name}": value for name, value in (("timeout_ms", "3000"), ("failure_threshold", "3"))},
    **{f"RAY_grpc_{side}keepalive_time_ms": "2000" for side in ("", "client_")},
    **{f"RAY_grpc_{side}keepalive_timeout_ms": "3000" for side in ("", "client_")},
}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Hosts:
    """Three hosts on one switch: the first runs the head of a Ray cluster and the driver, the others one core each."""

    def __init__(self, folder: Path) -> None:
        self.name = f"t{os.getpid()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        (folder / "token").write_text(secrets.token_hex(32))
        self.variables = {**VARIABLES, "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        self.temp_dir = f"/tmp/{self.name}"  # short: Ray puts sockets there, whose names have a limit
        self.folder = folder
        try:
            ip("netns", "add", f"{self.name}-switch")
            ip("-n", f"{self.name}-switch", "link", "add", "switch", "type", "bridge")
            ip("-n", f"{self.name}-switch", "link", "set", "switch", "up")
            for number in range(3):
                self._add_host(number)
            self._ray(0, "--head", f"--port={PORT}", "--num-cpus=0", f"--temp-dir={self.temp_dir}")
            for number in (1, 2):
                self._ray(number, f"--address={self.address}", "--num-cpus=1")
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        return f"10.213.0.1:{PORT}"

    def within(self, number: int) -> list[str]:
        """What goes before a command to run it on a host."""
        return ["ip", "netns", "exec", f"{self.name}-{number}"]

    def set_link(self, number: int, state: str) -> None:
        """Cut a host off the switch (`down`) or connect it (`up`)."""
        ip("-n", f"{self.name}-switch", "link", "set", f"host{number}", state)

    def stop(self) -> None:
        for process in self.processes:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
            process.wait(WAIT_S)
        for name in ("0", "1", "2", "switch"):
            subprocess.run(["ip", "netns", "del", f"{self.name}-{name}"], check=False, capture_output=True)
        shutil.rmtree(self.temp_dir, ignore_errors=True)

    def _add_host(self, number: int) -> None:
        host = f"{self.name}-{number}"
        ip("netns", "add", host)
        switch = ["netns", f"{self.name}-switch"]
        ip("link", "add", "net0", "netns", host, "type", "veth", "peer", "name", f"host{number}", *switch)
        ip("-n", f"{self.name}-switch", "link", "set", f"host{number}", "master", "switch", "up")
        ip("-n", host, "addr", "add", f"10.213.0.{number + 1}/24", "dev", "net0")
        for device in ("net0", "lo"):
            ip("-n", host, "link", "set", device, "up")

    def _ray(self, number: int, *words: str) -> None:
        """Start a node and wait until it is up: two that start at once take ports and files from each other."""
        command = [*self.within(number), str(BIN / "ray"), "start", "--block", "--disable-usage-stats"]
        command += [f"--node-ip-address=10.213.0.{number + 1}", "--object-store-memory=200000000", *words]
        log = self.folder / f"ray-{number}.log"
        with open(log, "w") as file:
            process = subprocess.Popen(command, env={**os.environ, **self.variables}, stdout=file, stderr=file)
        self.processes.append(process)
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.2)


def namespaces_work() -> bool:
    """Whether this user may make network namespaces."""
    if not shutil.which("ip") or subprocess.run(["ip", "netns", "add", "tricot-try"], capture_output=True).returncode:
        return False
    ip("netns", "del", "tricot-try")
    return True


@pytest.fixture
def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    if request.config.getoption("--kills") < 10:
        pytest.skip("of the long form, `make faults`")
    started = Hosts(tmp_path)
    yield started
    started.stop()


@pytest.mark.skipif(not namespaces_work(), reason="needs root and the `ip` command to make network namespaces")
def test_a_host_that_is_cut_off_does_not_stop_the_run_and_disturbs_no_row(
    whole: tuple[str, Path], tmp_path: Path, hosts: Hosts
) -> None:
    pairs, undisturbed = whole
    output = tmp_path / "run"
    job = start(
        settings(pairs, output), tmp_path / "config.yaml", hosts.address, within=hosts.within(0), **hosts.variables
    )
    while len(list(output.glob("attempts/unit-*.json"))) < 2:  # until both hosts work on a unit
        assert num_units(output, job) is not None, job.communicate()[0][-2000:]
        time.sleep(0.02)
    hosts.set_link(2, "down")
    said = finish(job)
    assert "has been marked dead" in said, "the job ended before the cut was noticed"
    assert table(output) == table(undisturbed), said[-2000:]
