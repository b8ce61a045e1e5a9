"""From the metrics of `jobs.evaluate` to a self-contained HTML page and a compact table for the terminal."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raylib.evaluation import plots
from raylib.prompts import UNIFIED

Metrics = Mapping[str, Any]


def render(metrics: Metrics, provenance: Metrics) -> str:
    """The page: tables with intervals, plots as inline SVG, provenance; no script and no external asset."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "points": points, "p_value": p_value, "measure": measure}
    models = {**metrics["baselines"], **metrics["students"]}
    return environment.get_template("report.html.jinja").render(
        metrics=metrics,
        provenance=provenance,
        models=models,
        best={key: max((m[key]["value"] for m in models.values()), default=None) for key in ("accuracy", "macro_f1")},
        slice_values={kind: _slice_values(models, kind) for kind in ("locale", "traffic", "class")},
        plots=_plots(metrics),
        unified=UNIFIED,
    )


def text_table(metrics: Metrics) -> str:
    """One line a model and a teacher's quantity, for standard output."""
    rows = [("model", "rows", "accuracy", "macro-F1", "ECE")]
    for kind in ("baselines", "students"):
        for name, model in metrics[kind].items():
            ece = f"{100 * model['calibration_error']:.1f}"
            rows.append((name, f"{model['num_pairs']:,}", measure(model["accuracy"]), measure(model["macro_f1"]), ece))
    for teacher, split, summary in _teacher_splits(metrics):
        title = f"{teacher} ({split})"
        for perspective, quantities in summary["perspectives"].items():
            calibration, vote = quantities["calibration"], quantities["vote"]
            ece = percent(calibration["calibration_error"]) if calibration else ""
            rows.append((f"{title} {perspective}", *_cells(quantities, ece)))
            if quantities["num_answers"] > quantities["num_pairs"]:
                rows.append((f"{title} {perspective} vote", *_cells(vote)))
        if "vote_of_all" in summary:
            rows.append((f"{title} vote of all perspectives", *_cells(summary["vote_of_all"])))
        together = summary.get("together", {})
        num_pairs = f"{together.get('num_pairs', 0):,}"
        if "pass_of_best" in together:
            pass_of_best = together["pass_of_best"]
            name = f"{title} {together['best_single']['perspective']} pass@{pass_of_best['k']}"
            rows.append((name, num_pairs, measure(pass_of_best), "", ""))
        if "oracle" in together:
            name = f"{title} oracle of {together['num_perspectives']} perspectives"
            rows.append((name, num_pairs, measure(together["oracle"]), "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 5))]).rstrip() for row in rows
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def _cells(quantities: Metrics, ece: str = "") -> tuple[str, str, str, str]:
    return f"{quantities['num_pairs']:,}", measure(quantities["accuracy"]), measure(quantities["macro_f1"]), ece


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash where it is undefined."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def points(value: float) -> str:
    """A difference of shares in signed percentage points, with a real minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def measure(value: Metrics) -> str:
    """A measure with its interval, e.g. `64.2 [61.0, 67.3]`."""
    return f"{percent(value['value'])} [{percent(value['low'])}, {percent(value['high'])}]"


def p_value(value: float) -> str:
    """A p value to three decimals; metrics.json holds all digits."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def shown_split(splits: Sequence[str], wanted: str) -> str:
    """The split a plot shows for a teacher: the evaluated one where there are answers to it, else the first."""
    return wanted if wanted in splits else splits[0]


def _teacher_splits(metrics: Metrics) -> Iterator[tuple[str, str, Metrics]]:
    for teacher, by_split in metrics["teachers"].items():
        for split, summary in by_split.items():
            yield teacher, split, summary


def _slice_values(models: Metrics, kind: str) -> dict[str, Metrics]:
    """Values of one kind of slice in their order, with the counts that all models share."""
    return dict(next(iter(models.values()))["slices"][kind]) if models else {}


def _plots(metrics: Metrics) -> dict[str, Any]:
    """SVG text by plot; a plot without data is None or an empty dict, and the template says so."""
    drawn: dict[str, Any] = {
        "confusion": {},
        "recall": {},
        "reliability": None,
        "tries": None,
        "stages": None,
        "rejects": None,
    }
    tries: dict[str, Any] = {}
    stages: dict[str, Any] = {}
    for i, (teacher, by_split) in enumerate(metrics["teachers"].items()):
        with_unified = [split for split, summary in by_split.items() if UNIFIED in summary["perspectives"]]
        with_single = [split for split, summary in by_split.items() if summary["perspectives"].keys() - {UNIFIED}]
        if with_unified:
            split = shown_split(with_unified, metrics["split"])
            stages[f"{teacher}\n({split})"] = {"unified prompt": by_split[split]["perspectives"][UNIFIED]["accuracy"]}
        if with_single:
            split = shown_split(with_single, metrics["split"])
            perspectives, together = by_split[split]["perspectives"], by_split[split].get("together", {})
            recalls = {name: value["per_class_recall"] for name, value in perspectives.items() if name != UNIFIED}
            drawn["recall"][f"{teacher} ({split})"] = plots.per_class_recall(recalls, f"recall{i}")
            if "oracle" in together:
                bars = {"best single": together["best_single"]}
                if "pass_of_best" in together:
                    bars[f"pass@{together['pass_of_best']['k']} of it"] = together["pass_of_best"]
                tries[f"{teacher}\n({split})"] = {**bars, "oracle": together["oracle"]}
    if tries:
        drawn["tries"] = plots.grouped_measures(tries, "accuracy, %", "tries")
    if stages:
        drawn["stages"] = plots.grouped_measures(stages, "accuracy, %", "stages")
    for i, (name, student) in enumerate(metrics["students"].items()):
        drawn["confusion"][name] = plots.confusion_matrix(student["confusion"], metrics["classes"], f"confusion{i}")
    if metrics["students"]:
        bins = {name: student["reliability"] for name, student in metrics["students"].items()}
        drawn["reliability"] = plots.reliability(bins, "reliability")
    if metrics["rejects_by_stage"]:
        counts = {stage: value["rejected"] for stage, value in metrics["rejects_by_stage"].items()}
        drawn["rejects"] = plots.rejects(counts, "rejects")
    return drawn
