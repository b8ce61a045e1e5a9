"""jobs.annotate through vLLM's own OpenAI server on the loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import annotation_runs
import httpx
import numpy as np
import pytest

from jobs.annotate import AnnotateConfig, run
from raylib.errors import InputError
from raylib.models import EMBEDDED_DIR
from raylib.ray_session import ray_session

KEY = "a-key-that-must-stay-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(EMBEDDED_DIR)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny", "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "768", "--max-num-seqs", "16", "--no-enable-chunked-prefill"]
    command += ["--kv-cache-memory-bytes", str(32 << 20), "--block-size", "32", "--generation-config", "vllm"]
    environment = {**os.environ, "VLLM_API_KEY": KEY, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as stream, subprocess.Popen(command, env=environment, stdout=stream, stderr=stream) as process:
        deadline_s = time.monotonic() + 240
        while not is_up(port):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, log.read_text()[-3000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
        process.terminate()


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def endpoint_settings(pairs: str, output: Path, **endpoint: Any) -> dict[str, Any]:
    """The settings of the `whole` run, with the endpoint in the engine's place."""
    body = {"chat_template_kwargs": {"enable_thinking": False}}
    settings = annotation_runs.settings(pairs, output)
    del settings["engine"]
    settings["limits"] |= {"too_long": 1.0}
    return {
        **settings,
        "endpoint": {"model": "tiny", "concurrency": 16, "max_tries": 2, "extra_body": body, **endpoint},
    }


def annotate(config: dict[str, Any]) -> dict[str, Any]:
    return run(AnnotateConfig.from_mapping(config, "test"))


def test_the_endpoint_says_what_the_engine_says(
    server: str,
    whole: tuple[str, Path],
    write_pairs: Callable[..., str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Sampled answers too: the server draws as vLLM does by itself, the engine behind the job's own truncation."""
    pairs = shutil.copytree(whole[0], tmp_path / "pairs")
    (pairs / "part-0.parquet").rename(pairs / "part-1.parquet")
    write_pairs(pairs, 1, pair_id="too-long", title="shoes " * 1000)
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    with ray_session():
        with pytest.raises(InputError, match="check model, key_env and key_file"):
            annotate(endpoint_settings(str(pairs), tmp_path / "no_key", base_url=server))
        keyed = {"base_url": server, "key_file": str(key_file), "label_probs": True}
        asked = annotate(endpoint_settings(str(pairs), tmp_path / "endpoint", **keyed))
    own = json.loads((whole[1] / "metrics.json").read_text())
    assert asked["rejected"] == {**own["rejected"], "too_long": 4}
    assert asked["generated_tokens"] == own["generated_tokens"]
    columns = ["pair_id", "perspective", "sample", "rationale", "label", "prompt_tokens", "generated_tokens"]
    answers = [annotation_runs.table(output)[0] for output in (tmp_path / "endpoint", whole[1])]
    assert answers[0].select(columns).equals(answers[1].select(columns))
    probs = [np.array(table.column("label_probs").to_pylist()) for table in answers]
    np.testing.assert_allclose(probs[0], probs[1], atol=1e-5)
    np.testing.assert_allclose(probs[0].sum(axis=1), 1.0, atol=1e-5)
    written = "".join(file.read_text() for file in (tmp_path / "endpoint").glob("*.*") if file.suffix != ".parquet")
    assert KEY not in written + "".join(capfd.readouterr())


def test_a_missing_key_is_told_with_its_place(tmp_path: Path, write_pairs: Callable[..., str]) -> None:
    pairs = write_pairs(tmp_path / "pairs", 2)
    absent = {"base_url": "http://127.0.0.1:1/v1", "key_file": f"{tmp_path}/absent"}
    with pytest.raises(InputError, match=f"key_file {tmp_path}/absent: No such file"):
        annotate(endpoint_settings(pairs, tmp_path / "out", **absent))
