"""Keep the figures of a pipeline run: summary.json -> one Markdown under benchmarks/results.

python -m benchmarks.record runs/demo/summary.json benchmarks/results/demo.md
"""

import json
import sys
from pathlib import Path
from typing import Any

from raylib.evaluation.report import text_table


def render(summary: dict[str, Any], source: str) -> str:
    """The run's stages and scores as Markdown, with versions and hardware."""
    stages = summary["stages"]
    evaluation = next(metrics for metrics in stages.values() if metrics["job"] == "evaluate")
    machine = summary["machine"]
    total_s = sum(metrics["stage_s"] for metrics in stages.values())
    peak = max(metrics["peak_memory_bytes"] for metrics in stages.values())
    lines = [
        f"# {source}",
        "",
        f"Commit `{summary['commit']}`; {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['system']}. All stages: {total_s:.0f} s, peak memory {peak / 2**30:.1f} GiB.",
        "",
        "| stage | rows in | rows out | rejected | seconds | peak GiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {m['rows_in']:,} | {m['rows_out']:,} | {sum(m['rejected'].values()):,} | {m['stage_s']:.1f} "
        f"| {m['peak_memory_bytes'] / 2**30:.2f} |"
        for name, m in stages.items()
    ]
    lines += ["", f"Split `{evaluation['split']}`, intervals of 95 % by bootstrap over queries:", ""]
    lines += ["```", text_table(evaluation), "```"]
    lines += ["", "Versions: " + ", ".join(f"{name} {version}" for name, version in summary["versions"].items()) + "."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.write_text(render(json.loads(source.read_text()), target.stem))
    print(f"wrote {target}")
