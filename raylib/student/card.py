"""The card of a student: what it is, what it learnt from, and what was measured; README.md of the artifact."""

from collections.abc import Mapping
from typing import Any

from raylib.student.model import StudentSpec

USE = """```python
from raylib.student.inference import Scorer

scorer = Scorer("PATH OF THIS DIRECTORY")  # dtype="bfloat16" or "int8" is faster on a CPU
probs = scorer.score([{"query": "red running shoes", "title": "Acme trail runner, red", "brand": "Acme"}])
```

`raylib.student.model.Student.from_pretrained` gives the torch module itself."""


def render(spec: StudentSpec, facts: Mapping[str, Any]) -> str:
    """Markdown of `facts`, the metrics of the run that trained the student: what is not among them is not claimed."""
    schema = spec.label_schema
    latents = f", {spec.num_latents} latents" if spec.num_latents > 1 else ""
    lines = [
        f"# Relevance student, {schema.name}",
        "",
        f"A cross-encoder that says how well an item fits a query. Objective `{facts['objective']}`, extractor "
        f"`{spec.extractor}`{latents}, backbone `{facts['backbone']}`, at most {spec.max_length} tokens of the query "
        f"and {', '.join(spec.item_fields)}.",
        "",
        "| class | gain | training pairs | definition |",
        "|---|---:|---:|---|",
    ]
    lines += [
        f"| {item.name} | {item.gain:g} | {facts['train_classes'].get(item.name, 0):,} | {item.definition} |"
        for item in schema.classes
    ]
    lines += [
        "",
        "| split | pairs | accuracy, % | macro-F1, % | majority class, the same two |",
        "|---|---:|---:|---:|---|",
    ]
    for name in ("dev", "test"):
        if found := facts[name]:
            lines.append(
                f"| {name} | {found['num_pairs']:,} | {100 * found['accuracy']:.1f} | {100 * found['macro_f1']:.1f} "
                f"| {100 * found['majority_accuracy']:.1f} / {100 * found['majority_macro_f1']:.1f} |"
            )
    lines += ["", "The epoch was chosen on dev."]
    if facts["calibration"]:
        before, after = (facts["calibration"][f"dev_cross_entropy_{when}"] for when in ("before", "after"))
        lines[-1] += (
            f" Probabilities are calibrated on dev: temperature {spec.temperature:.2f}, cross-entropy there "
            f"{before:.3f} before and {after:.3f} after."
        )
    if facts["by_precision"]:
        lines += ["", "| precision | dev accuracy, % | dev macro-F1, % |", "|---|---:|---:|"]
        lines += [
            f"| {dtype} | {100 * found['dev_accuracy']:.1f} | {100 * found['dev_macro_f1']:.1f} |"
            for dtype, found in facts["by_precision"].items()
        ]
    thresholds = ", ".join(f"{value:g}" for value in schema.tier_thresholds)
    lines += ["", f"Score: expected gain. Tiers 1 to 4 begin at {thresholds}; 0 and 1 are filtered.", "", USE]
    return "\n".join(lines) + "\n"
