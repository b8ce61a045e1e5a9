"""jobs.serve with a tiny student: real HTTP, parity with the offline scores, refusals, a clean end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving_runs import SCHEMA, counted, free_port, save

from jobs.serve import ServeConfig, run
from raylib import tables
from raylib.errors import ConfigError, InputError

ROOT = Path(__file__).parents[2]
REFUSED = ((429, "queue_full"), (503, "overloaded"), (504, "deadline_exceeded"))
RULE = "- {{name: {}, when: {{brand: [nobody's]}}, max_tier: 1}}\n"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("student") / "model", seed=0)


@pytest.fixture(scope="module")
def offline(artifact, tmp_path_factory, write_pairs) -> tuple[str, str]:
    """A pairs table and its scores table."""
    folder = tmp_path_factory.mktemp("tables")
    pairs = write_pairs(folder / "pairs", 40, split="test")
    return pairs, score(artifact, pairs, folder / "scores")


def score(artifact: Path, pairs: str, folder: Path) -> str:
    """Write the scores table of a student."""
    from raylib.student.inference import Scorer, score_rows

    rows = tables.read_table(pairs, tables.PAIRS).to_pylist()
    probs_NC = Scorer(artifact).score(rows)
    assert np.ptp(probs_NC, axis=0).max() > 0.01
    scored = score_rows([row["pair_id"] for row in rows], probs_NC, SCHEMA)
    tables.write_parquet(f"{folder}/a.parquet", tables.SCORES, [tables.rows_batch(scored, tables.SCORES)])
    return str(folder)


def settings(output: Path, artifact: Path, offline: tuple[str, str], **changes) -> ServeConfig:
    values = {
        "output": str(output), "model": str(artifact), "port": free_port(), "limits": {"max_items": 3},
        "parity": {"pairs": offline[0], "scores": offline[1], "num_rows": 30, "tolerance": 1e-5},
        "exit_after_parity": True, "replicas": {"num_cpus": 0.5}, **changes,
    }  # fmt: skip
    return ServeConfig.from_mapping(values, "test")


def test_bad_input_ends_before_ray_starts(tmp_path, artifact, offline):
    import ray

    with pytest.raises(InputError, match=r"student\.json"):
        run(settings(tmp_path / "a", tmp_path / "nothing", offline))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            run(settings(tmp_path / "b", artifact, offline, port=port))
    with pytest.raises(ConfigError, match=r"parity.pairs and parity.scores go together"):
        settings(tmp_path / "c", artifact, offline, parity={"scores": offline[1]})
    with pytest.raises(ConfigError, match="together 1"):
        settings(tmp_path / "d", artifact, offline, experiment={"shares": {"new": 0.5}})
    assert not ray.is_initialized()


def test_serves_refuses_exchanges_and_drains(tmp_path, artifact, offline):
    """As an operator has it: one process, signals, and paths behind which the student is exchanged."""
    chosen, scores = tmp_path / "chosen", tmp_path / "scores"
    chosen.symlink_to(artifact)
    scores.symlink_to(offline[1])
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULE.format("before"))
    limits = {"max_items": 3, "max_queued_requests": 8}
    replicas = {"num_cpus": 0.5, "max_ongoing_requests": 1}
    changes = {"exit_after_parity": False, "rules": str(rules), "limits": limits, "replicas": replicas}
    config = settings(tmp_path / "run", chosen, (offline[0], str(scores)), **changes)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-m", "jobs.serve", "--config", str(tmp_path / "config.yaml")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("serving "):
                    break
            assert process.poll() is None, "".join(lines)
            reader = threading.Thread(target=lambda: lines.extend(process.stdout))
            reader.start()
            with httpx.Client(base_url=f"http://127.0.0.1:{config.port}", timeout=30.0) as client:
                check_answers(client)
                check_rerank(client)
                check_refusals(client)
                check_metrics(client)
                other = save(tmp_path / "other", seed=1)
                other_scores = score(other, offline[0], tmp_path / "other_scores")
                rules.write_text(RULE.format("after"))
                check_exchange(client, process, lines, [(chosen, other), (scores, Path(other_scores))])
            outcomes = send_while_stopping(f"http://127.0.0.1:{config.port}", process)
            assert process.wait(60) == 0, "".join(lines)
            reader.join(5)
            for statuses in outcomes:
                assert 200 in statuses
                accepted = statuses[: len(statuses) - statuses[::-1].index(200)]
                assert set(accepted) == {200}, statuses[-5:]
                assert statuses[len(accepted)] in (404, 503, "refused"), statuses[-5:]
        finally:
            process.kill()


def check_answers(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    model = client.get("/v1/model").json()
    assert model["classes"] == list(SCHEMA.names)
    items = [{"item_id": f"ü{i}", "title": f"zapatillas rojas {i}", "brand": None} for i in range(3)]
    answer = client.post("/v1/score", json={"query": "zapatillas", "locale": "es", "items": items}).json()
    assert [item["item_id"] for item in answer["items"]] == ["ü0", "ü1", "ü2"]
    for item in answer["items"]:
        assert sum(item["probs"].values()) == pytest.approx(1, abs=1e-5)
        assert item["label"] == max(item["probs"], key=item["probs"].get)
        expected = sum(p * gain for p, gain in zip(item["probs"].values(), SCHEMA.gains, strict=True))
        assert item["score"] == pytest.approx(expected, abs=1e-6)
        assert item["tier"] == SCHEMA.tier(item["score"])
        assert item["filtered"] == (item["tier"] < 2)


def check_rerank(client: httpx.Client) -> None:
    texts = ["zapatillas rojas", "lámpara", "zapatillas"]
    listed = client.post("/rerank", json={"query": "zapatillas", "texts": texts, "truncate": True}).json()
    assert sorted(row["index"] for row in listed) == [0, 1, 2]
    assert [row["score"] for row in listed] == sorted((row["score"] for row in listed), reverse=True)
    items = [{"item_id": text, "title": text} for text in texts]
    scored = client.post("/v1/score", json={"query": "zapatillas", "locale": "es", "items": items}).json()["items"]
    assert listed[0]["score"] == pytest.approx(scored[listed[0]["index"]]["score"], abs=1e-5)
    body = {"query": "zapatillas", "documents": texts, "top_n": 1, "model": "any"}
    answer = client.post("/rerank", json=body).json()
    assert answer["results"] == [{"index": listed[0]["index"], "relevance_score": pytest.approx(listed[0]["score"])}]
    assert client.post("/rerank", json={"query": "shoe", "texts": ["a"] * 4}).json()["reason"] == "too_many_items"
    assert client.post("/rerank", json={"query": "shoe"}).status_code == 422


def check_refusals(client: httpx.Client) -> None:
    item = {"item_id": "1", "title": "shoe"}
    good = {"query": "shoe", "locale": "en", "items": [item]}
    assert client.post("/v1/score", json=good, headers={"X-Deadline-Ms": "60000"}).status_code == 200
    answer = client.post("/v1/score", json=good, headers={"X-Deadline-Ms": "soon"})
    assert (answer.status_code, answer.json()["reason"]) == (422, "invalid_request")
    check_pressure(client, good)
    cases = [
        ({**good, "items": [item] * 4}, 413, "too_many_items", None),
        ({**good, "items": []}, 422, "invalid_request", "items"),
        ({**good, "query": " \n"}, 422, "invalid_request", "query"),
        ({**good, "query": "q" * 1001}, 422, "invalid_request", "query"),
        ({**good, "items": [{**item, "title": "t" * 10_001}]}, 422, "invalid_request", "items.0.title"),
        ({**good, "items": [{**item, "title": None}]}, 422, "invalid_request", "items.0.title"),
        ({**good, "items": [{**item, "price": 3}]}, 422, "invalid_request", "items.0.price"),
        ({"query": "shoe"}, 422, "invalid_request", "locale"),
    ]
    for body, status, reason, field in cases:
        answer = client.post("/v1/score", json=body)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
        if field:
            assert field in [problem["field"] for problem in answer.json()["problems"]]
    header = {"content-type": "application/json"}
    for content, status in ((b"{not json", 422), (b'{"query": "\xff\xfe"}', 422), (b" " * (5 << 20), 413)):
        answer = client.post("/v1/score", content=content, headers=header)
        assert answer.status_code == status, answer.text
        assert answer.json()["reason"] in ("invalid_request", "invalid_body", "body_too_large")
    surrogate = json.dumps(good).replace("shoe", "\\ud800", 1).encode()
    assert client.post("/v1/score", content=surrogate, headers=header).status_code == 422
    assert client.get("/v1/nothing").json()["reason"] == "unknown_path"


def check_metrics(client: httpx.Client) -> None:
    """Refusals are counted as what they were."""
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = counted(page)
    assert found['tricot_requests_total{path="/v1/score",status="422"}'] >= 9
    assert found['tricot_items_total{model="main"}'] > 10
    assert found["tricot_replicas"] == 1


def check_exchange(
    client: httpx.Client, process: subprocess.Popen, lines: list[str], links: list[tuple[Path, Path]]
) -> None:
    """A student that does not score the sample as its table is refused; with its own table it is taken, unnoticed."""
    before = client.get("/v1/model").json()["fingerprint"]
    good = {"query": "shoe", "locale": "en", "items": [{"item_id": "1", "title": "shoe"}]}
    statuses: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            statuses.append(httpx.post(f"{client.base_url}/v1/score", json=good, timeout=60.0).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for (link, target), said in zip(links, ("not taken: ", "now serving "), strict=True):
            link.unlink()
            link.symlink_to(target)
            process.send_signal(signal.SIGHUP)
            for _ in range(600):
                if any(line.startswith(said) for line in lines):
                    break
                time.sleep(0.1)
            assert any(line.startswith(said) for line in lines), lines[-3:]
            assert (client.get("/v1/model").json()["fingerprint"] == before) == (said == "not taken: ")
    finally:
        is_over.set()
        asking.join()
    assert set(statuses) == {200}
    found = client.get("/v1/model").json()
    assert found["parity"]["max_abs_difference"] <= 1e-5
    assert found["rules"] == ["after"]


def check_pressure(client: httpx.Client, good: dict) -> None:
    """More at once than can be answered in a few ms: each is answered or refused with a reason, and none is lost."""

    def ask(deadline_ms: int) -> httpx.Response:
        return client.post("/v1/score", json=good, headers={"X-Deadline-Ms": str(deadline_ms)})

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, [1, 60_000] * 60))
    assert {answer.status_code for answer in answers[1::2]} <= {200, 429, 503}
    for answer in answers:
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/json", answer.text
            status, reason = answer.status_code, answer.json()["reason"]
            assert (status, reason) in REFUSED, answer.text
            assert status == 504 or int(answer.headers["retry-after"]) >= 1
    assert any(answer.status_code == 429 for answer in answers)
    assert ask(60_000).status_code == 200


def send_while_stopping(url: str, process: subprocess.Popen) -> list[list[int | str]]:
    """What each of 4 clients got while the server was told to stop: statuses, at last how its connection ended."""
    body = {"query": "shoe", "locale": "en", "items": [{"item_id": "1", "title": "shoe " * 50}] * 3}

    def client_loop(statuses: list[int | str]) -> None:
        with httpx.Client(base_url=url, timeout=60.0) as client:
            while True:
                try:
                    statuses.append(client.post("/v1/score", json=body).status_code)
                except httpx.ConnectError:
                    statuses.append("refused")
                    return
                except httpx.HTTPError as error:
                    statuses.append(repr(error))
                    return

    outcomes: list[list[int | str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=client_loop, args=(statuses,)) for statuses in outcomes]
    for thread in threads:
        thread.start()
    while not all(outcomes):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    for thread in threads:
        thread.join(120)
    return outcomes
