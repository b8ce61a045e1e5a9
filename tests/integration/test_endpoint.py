"""jobs.annotate through vLLM's own OpenAI server on the loopback."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from jobs.annotate import AnnotateConfig, run
from raylib import tables
from raylib.errors import InputError
from raylib.labels import LabelSchema
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


def settings(pairs: str, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output": str(output),
        "pairs": pairs,
        "perspectives": ["user_intent"],
        "samples": 1,
        "temperature": 0.0,
        "num_few_shots": 1,
        "max_tokens": 96,
        "pairs_per_unit": 4,
        "limits": {"unparsed": 1.0, "too_long": 1.0},
        **changes,
    }


def endpoint(url: str, **changes: Any) -> dict[str, Any]:
    body = {"chat_template_kwargs": {"enable_thinking": False}}
    return {"base_url": url, "model": "tiny", "concurrency": 4, "max_tries": 2, "extra_body": body, **changes}


def annotate(config: dict[str, Any]) -> dict[str, Any]:
    return run(AnnotateConfig.from_mapping(config, "test"))


def test_the_endpoint_says_what_the_engine_says(
    server: str, write_pairs: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pairs = write_pairs(tmp_path / "pairs", 12)
    (tmp_path / "pairs" / "part-0.parquet").rename(tmp_path / "pairs" / "part-1.parquet")
    write_pairs(tmp_path / "pairs", 1, pair_id="too-long", title="shoes " * 1000)
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    engine = {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 16, "max_model_len": 768}
    with ray_session():
        with pytest.raises(InputError, match="check model, key_env and key_file"):
            annotate(settings(pairs, tmp_path / "no_key", endpoint=endpoint(server)))
        keyed = endpoint(server, key_file=str(key_file), label_probs=True)
        asked = annotate(settings(pairs, tmp_path / "endpoint", endpoint=keyed))
        engine |= {"kv_cache_memory_bytes": 32 << 20, "label_probs": True}
        own = annotate(settings(pairs, tmp_path / "engine", engine=engine))
    assert asked["rejected"]["too_long"] == own["rejected"]["too_long"] == 1
    assert asked["rejected"] == own["rejected"]
    assert asked["generated_tokens"] == own["generated_tokens"]
    columns = ["pair_id", "rationale", "label", "prompt_tokens", "generated_tokens", "label_probs"]
    answers = [
        tables.read_table(str(tmp_path / name), tables.RATIONALES, columns).sort_by("pair_id")
        for name in ("endpoint", "engine")
    ]
    assert answers[0].num_rows > 5, "too few answers parse to compare anything"
    probs = [np.array(table.column("label_probs").to_pylist()) for table in answers]
    np.testing.assert_allclose(probs[0], probs[1], atol=1e-5)
    np.testing.assert_allclose(probs[0].sum(axis=1), 1.0, atol=1e-5)
    names = LabelSchema.load("marketplace6").names
    assert [names[i] for i in probs[0].argmax(axis=1)] == answers[0].column("label").to_pylist(), (
        "greedy: the likeliest"
    )
    assert answers[0].drop_columns("label_probs").equals(answers[1].drop_columns("label_probs"))
    written = "".join(file.read_text() for file in (tmp_path / "endpoint").glob("*.*") if file.suffix != ".parquet")
    assert KEY not in written + "".join(capfd.readouterr())


def test_a_missing_key_is_told_with_its_place(tmp_path: Path, write_pairs: Callable[..., str]) -> None:
    pairs = write_pairs(tmp_path / "pairs", 2)
    absent = endpoint("http://127.0.0.1:1/v1", key_file=f"{tmp_path}/absent")
    with pytest.raises(InputError, match=f"key_file {tmp_path}/absent: No such file"):
        annotate(settings(pairs, tmp_path / "out", endpoint=absent))
