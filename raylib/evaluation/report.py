"""From the metrics of `jobs.evaluate` to a self-contained HTML page and a compact table for the terminal."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raylib.evaluation import plots
from raylib.evaluation.teachers import UNIFIED

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
            row = (measure(quantities["accuracy"]), measure(quantities["macro_f1"]), "")
            rows.append((f"{title} {perspective}", f"{quantities['num_pairs']:,}", *row))
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
    """A p value to three decimals, small ones in scientific notation."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def shown_split(by_split: Metrics, wanted: str) -> str:
    """The split a plot shows for a teacher: the evaluated one where it was annotated, else the one with most pairs."""
    return wanted if wanted in by_split else max(by_split, key=lambda split: by_split[split]["num_pairs"])


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
    tries, stages = {}, {}
    for i, (teacher, by_split) in enumerate(metrics["teachers"].items()):
        if not by_split:
            continue
        split = shown_split(by_split, metrics["split"])
        summary, title = by_split[split], f"{teacher}\n({split})"
        perspectives = summary["perspectives"]
        singles = {name: value for name, value in perspectives.items() if name != UNIFIED}
        if singles:
            recalls = {name: value["per_class_recall"] for name, value in singles.items()}
            drawn["recall"][f"{teacher} ({split})"] = plots.per_class_recall(recalls, f"recall{i}")
        stages[title] = {
            f"{name} prompt": perspectives[name]["accuracy"] for name in (UNIFIED,) if name in perspectives
        }
        together = summary.get("together", {})
        if "oracle" in together:
            tries[title] = {"best single": together["best_single"]}
            if "pass_of_best" in together:
                tries[title][f"pass@{together['pass_of_best']['k']} of it"] = together["pass_of_best"]
            tries[title]["oracle"] = together["oracle"]
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
