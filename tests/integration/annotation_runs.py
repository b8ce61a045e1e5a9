"""What the tests of disturbed annotation runs share: the job as a process, its engines, its table."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import yaml
from processes import children

from raylib import tables

NUM_PAIRS = 60
WAIT_S = 900  # a bound against hanging for ever, far beyond what a busy machine needs


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
            "label_probs": True,
        },
        **changes,
    }


def start(
    config: dict[str, Any], path: Path, address: str | None = None, within: Sequence[str] = (), **variables: str
) -> subprocess.Popen[str]:
    """The job as a process on the cluster at `address`, or on a Ray of its own; `within` goes before the command."""
    path.write_text(yaml.safe_dump(config))
    command = [*within, sys.executable, "-m", "jobs.annotate", "--config", str(path)]
    environment = {**os.environ, **variables, **({"RAY_ADDRESS": address} if address else {})}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(job: subprocess.Popen[str]) -> str:
    said, _ = job.communicate(timeout=WAIT_S)
    assert job.returncode == 0, said[-4000:]
    return said


def engines() -> list[psutil.Process]:
    """The actors that hold an engine on the nodes that this process has started."""
    return children("ray::MapWorker(MapBatches(Annotator))")


def table(output: Path) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Rows and rejects, sorted by what names them."""
    rows = tables.read_table(str(output), tables.RATIONALES)
    rows = rows.sort_by([(name, "ascending") for name in ("pair_id", "perspective", "sample")])
    rejects = tables.read_table(f"{output}/rejected", tables.REJECTED).to_pylist() if rejected(output) else []
    return rows, sorted(rejects, key=lambda row: str(row["payload"]))


def rejected(output: Path) -> bool:
    return any((output / "rejected").glob("*.parquet"))


def num_units(output: Path, job: subprocess.Popen[str]) -> int | None:
    """Finished units, None when the job has ended."""
    return None if job.poll() is not None else len(list(output.glob("unit-*.parquet")))
