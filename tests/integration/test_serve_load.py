"""The server under load while its replicas come and go."""

import threading
import time
from collections.abc import Callable

import httpx
import psutil
from processes import children
from serving_runs import counted, free_port, save

from raylib.ray_session import ray_session
from raylib.serving.deployment import Wanted
from raylib.serving.server import running_server
from raylib.serving.settings import MAIN, ModelRef, Policy, ServerSettings, artifact_fingerprint


def test_a_lost_replica_costs_no_request_and_load_brings_further_ones(tmp_path):
    """In this process, to reach the replicas' processes."""
    artifact = save(tmp_path / "model", seed=0)
    server = ServerSettings(
        "127.0.0.1", free_port(), num_cpus=0.5, max_replicas=2, target_ongoing_requests=1.0, max_wait_ms=60_000.0,
        deadline_ms=60_000.0, upscale_delay_s=1.0, downscale_delay_s=2.0,
    )  # fmt: skip
    wanted = Wanted({MAIN: ModelRef(str(artifact), artifact_fingerprint(artifact))}, None, Policy())
    statuses: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        body = {"query": "shoe", "locale": "en", "items": [{"item_id": "1", "title": "shoe " * 60}] * 20}
        with httpx.Client(base_url=url, timeout=120.0) as client:
            while not is_over.is_set():
                statuses.append(client.post("/v1/score", json=body).status_code)

    def replicas() -> list[psutil.Process]:
        return children("StudentReplica")

    def until(is_so: Callable[[], bool]) -> None:
        for _ in range(1200):
            if is_so():
                return
            time.sleep(0.1)
        raise AssertionError(f"{len(replicas())} replicas, {len(statuses)} answers")

    with ray_session(2), running_server(server, wanted) as url:
        assert len(replicas()) == 1
        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        try:
            # the autoscaler's answer to the load; one that is still loading would have nothing to lose
            until(lambda: counted(httpx.get(f"{url}/metrics"))["tricot_replicas"] == 2)
            num_answers = len(statuses)
            replicas()[0].kill()
            until(lambda: len(statuses) > num_answers + 20)
        finally:
            is_over.set()
            for thread in asking:
                thread.join()
        assert set(statuses) == {200}
        assert counted(httpx.get(f"{url}/metrics"))["tricot_retried_total"] >= 1
        until(lambda: len(replicas()) == 1)  # without load the second one goes
