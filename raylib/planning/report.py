"""A plan as Markdown: the totals, one table a stage, the assumptions."""

from typing import Any

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))
TOTALS = ("gpu_hours", "hours", "cost")


def totals(stages: dict[str, dict[str, Any]]) -> dict[str, float]:
    """GPU hours, hours one stage after the other, and money, of the stages for which they are known."""
    return {name: sum(facts[name] for facts in stages.values() if name in facts) for name in TOTALS}


def plan_markdown(
    title: str, stages: dict[str, dict[str, Any]], not_planned: list[str], notes: list[str], has_price: bool
) -> str:
    """The text of plan.md."""
    found = totals(stages)
    without = [name for name, facts in stages.items() if "hours" not in facts and name != "prepare"]
    lines = [f"# {title}", "", f"GPU hours: **{found['gpu_hours']:,.2f}**, hours: **{found['hours']:,.2f}**"]
    if has_price:
        lines[-1] += f", cost: **{found['cost']:,.2f}**"
    if without:
        lines += [
            "",
            f"Without hours: {', '.join(without)}. The speed of CPUs is not estimated (`throughput` takes measured "
            "rates), nor that of a model that does not fit.",
        ]
    for name, facts in stages.items():
        lines += ["", f"## {name}", "", "| | |", "|---|---:|"]
        lines += [
            f"| {key.replace('_bytes', '').replace('_', ' ')} | {format_fact(key, facts[key])} |" for key in facts
        ]
    if not_planned:
        lines += ["", f"Not planned (no model, or said below): {', '.join(not_planned)}."]
    lines += ["", "## Assumptions", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def format_fact(name: str, value: float) -> str:
    """A fact with its unit, as its name says."""
    if "_bytes" in name:
        size, unit = next((size, unit) for size, unit in UNITS if value >= size or size == 1)
        return f"{value / size:.1f} {unit}"
    if name == "flops":
        return f"{value:.3g}"
    if name in TOTALS:
        return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
