"""What every result says of itself: when, from which code, with which versions, on what machine."""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from raylib.runs import commit, package_versions

CPUINFO = Path("/proc/cpuinfo")


def shown_command(module: str, words: Sequence[str]) -> str:
    """The command as anybody would type it: an absolute path is of one machine and becomes DIR."""
    return " ".join(["python -m", module, *("DIR" if word.startswith("/") else word for word in words)])


def provenance(command: str) -> dict[str, Any]:
    """The fields that go before a result's own figures; `load_average` is that of the last minute."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "versions": package_versions(),
        "hardware": {
            "cores": os.cpu_count(),
            "cpu": names[0] if names else platform.processor(),
            "memory_bytes": psutil.virtual_memory().total,
            "system": platform.system(),
            "load_average": os.getloadavg()[0],
        },
    }


def write_result(path: Path, record: dict[str, Any], report: str) -> None:
    """Keep the raw figures as PATH.json and the report as PATH.md, and print the report."""
    path.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(report)
    print(report)


def describe(result: dict[str, Any], *packages: str) -> str:
    """Command, date, commit, machine and the versions of `packages` (all without any) as a paragraph of Markdown."""
    hardware, versions = result["hardware"], result["versions"]
    named = [f"{name} {versions[name]}" for name in packages or versions if name in versions]
    return (
        f"Command: `{result['command']}`, {result['date']}, commit {result['commit']}.\n"
        f"{hardware['cores']} cores ({hardware['cpu']}), {hardware['memory_bytes'] / 2**30:.0f} GiB, "
        f"{hardware['system']}; load average then {hardware['load_average']:.1f}; {', '.join(named)}."
    )
