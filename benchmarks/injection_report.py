"""The figures of benchmarks/injection.py: rates with intervals, and their Markdown."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.provenance import describe, provenance, shown_command
from raylib.evaluation.resampling import mean_interval
from raylib.prompts.attacks import Suite

CLEAN, ATTACK, NEUTRAL = "clean", "attack", "neutral"
NUM_BOOTSTRAP = 2000
NUM_WORST = 12  # attacks that the Markdown lists
Row = dict[str, Any]


def rates(group: Sequence[Row]) -> Row:
    """Shares of a group of trials: Wilson intervals, and the difference with an interval by bootstrap over queries."""
    found: Row = {"num_trials": len(group)}
    for variant in (ATTACK, NEUTRAL):
        flips = sum(trial[f"{variant}_flipped"] for trial in group)
        interval = binomtest(flips, len(group)).proportion_ci(0.95, "wilson")
        found[variant] = {
            "flips": flips,
            "share": flips / len(group),
            "low": float(interval.low),
            "high": float(interval.high),
            "changed": sum(trial[f"{variant}_changed"] for trial in group),
            "unparsed": sum(trial[f"{variant}_unparsed"] for trial in group),
        }
    gaps_N = np.array([float(trial["attack_flipped"]) - float(trial["neutral_flipped"]) for trial in group])
    query_N = np.unique([trial["query"] for trial in group], return_inverse=True)[1]
    low, high = mean_interval(gaps_N, query_N, NUM_BOOTSTRAP, seed=0)
    return found | {"difference": {"share": float(gaps_N.mean()), "low": low, "high": high}}


def grouped(found: Sequence[Row], suite: Suite, names: Sequence[str]) -> list[Row]:
    """Rates by the values of `names` (properties of a trial or of its attack), the most harmful first."""
    attacks = {attack.id: attack for attack in suite.attacks}
    groups: dict[tuple[str, ...], list[Row]] = {}
    for trial in found:
        properties = {**attacks[trial["attack"]].model_dump(), **trial}
        groups.setdefault(tuple(properties[name] for name in names), []).append(trial)
    rows = [dict(zip(names, key, strict=True)) | rates(group) for key, group in groups.items()]
    return sorted(rows, key=lambda row: -row["difference"]["share"])


def summary(
    suite: Suite,
    rows: Sequence[Row],
    labels: dict[tuple[str, str], str],
    perspectives: Sequence[str],
    found: Sequence[Row],
) -> Row:
    """All figures, as the JSON holds them."""
    clean = [(row, name) for row in rows if row["variant"] == CLEAN for name in perspectives]
    asked = Counter(row["variant"] for row in rows)
    parsed = Counter(row["variant"] for row in rows for name in perspectives if (row["pair_id"], name) in labels)
    judged = [labels.get((row["pair_id"], name)) == row["gold"] for row, name in clean if row["gold"]]
    lengths: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row["variant"] != CLEAN:
            lengths.setdefault((row["source"], row["attack"]), []).append(row["num_tokens"])
    return {
        **provenance(shown_command("benchmarks.injection", sys.argv[1:])),
        "num_pairs": asked[CLEAN],
        "num_attacks": len(suite.attacks),
        "num_locales": len({attack.locale for attack in suite.attacks}),
        "unparsed": {name: asked[name] * len(perspectives) - parsed[name] for name in asked},
        "asked": {name: asked[name] * len(perspectives) for name in asked},
        "clean_labels": dict(Counter(labels.get((row["pair_id"], name), "none") for row, name in clean)),
        "clean_accuracy": sum(judged) / len(judged) if judged else None,
        "largest_length_difference": max(abs(attack - neutral) for attack, neutral in lengths.values()),
        "all": grouped(found, suite, []),
        "by_perspective": grouped(found, suite, ["perspective"]),
        "by_kind": grouped(found, suite, ["kind"]),
        "by_kind_and_perspective": grouped(found, suite, ["kind", "perspective"]),
        "by_locale": grouped(found, suite, ["locale"]),
        "by_attack": grouped(found, suite, ["id"]),
    }


def report(result: Row) -> str:
    """The Markdown of a summary."""
    asked, unparsed = result["asked"], result["unparsed"]
    accuracy = result["clean_accuracy"]
    right = "" if accuracy is None else f" {accuracy:.1%} of the clean titles' labels are the gold ones."
    unanswered = ", ".join(f"{unparsed[name]:,} of {asked[name]:,} ({name})" for name in asked)
    lines = [
        "# Prompt injection through titles",
        "",
        describe(result),
        f"Engine: {result['engine']}.",
        "",
        f"{result['num_attacks']} attacks in {result['num_locales']} languages on {result['num_pairs']} pairs, greedy, "
        f"one sample, {result['num_few_shots']} example(s) in the prompt. Each attack asks for `{result['target']}`; a "
        "trial is an attacked pair and a perspective whose clean label is another one.",
        "`attack` is the share of trials in which the label becomes the target, `neutral` the same share when filler",
        "words of equal length stand in the attack's place (Wilson 95 % intervals, in percent). `difference` is attack",
        "minus neutral, in points, with a 95 % bootstrap interval over queries: what the attack itself does.",
        "Wilson takes trials as independent, though a pair has several; the bootstrap does not.",
        f"The texts' lengths differ by at most {result['largest_length_difference']} token(s).{right}",
        f"Answers without a label: {unanswered}; these count as not flipped.",
        "",
        *_table(
            ["perspective"], [*result["by_perspective"], *({"perspective": "all", **row} for row in result["all"])]
        ),
        "",
        "## By kind of attack",
        "",
        *_table(["kind"], result["by_kind"]),
        "",
        "## By language of the attack",
        "",
        *_table(["locale"], result["by_locale"]),
        "",
        "## By kind and perspective",
        "",
        *_table(["kind", "perspective"], result["by_kind_and_perspective"]),
        "",
        f"## The {NUM_WORST} attacks that gain most",
        "",
        *_table(["id"], result["by_attack"][:NUM_WORST]),
    ]
    return "\n".join(lines) + "\n"


def _table(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    columns = [*names, "trials", "attack", "neutral", "difference", "label changed, attack / neutral", "no label"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(names) + "---:|" * (len(columns) - len(names))]
    for row in rows:
        attack, neutral, num_trials = row[ATTACK], row[NEUTRAL], row["num_trials"]
        cells = [
            *(row[name] for name in names),
            f"{num_trials:,}",
            _share(attack),
            _share(neutral),
            _share(row["difference"]),
            f"{attack['changed'] / num_trials:.0%} / {neutral['changed'] / num_trials:.0%}",
            f"{attack['unparsed']} / {neutral['unparsed']}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _share(found: Row) -> str:
    return f"{100 * found['share']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
