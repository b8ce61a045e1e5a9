"""False alarms and power of jobs.abtest on simulated experiments whose truth is known.

    python -m benchmarks.abtest [--num_tests 1000] [--num_users 4000]

Users, searches and clicks are those of raylib/market/experiment.py, half of the users in each arm, 14 days before and
14 during the experiment. Without an effect every test that says there is one is a false alarm; at a level of 5 % they
should be 5 %. With one, the share of tests that find it is the power. A test by impressions, which takes clicks as
independent, stands beside them. Writes benchmarks/results/abtest.{md,json}.
"""

import argparse
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from scipy.stats import beta

from benchmarks.provenance import describe, provenance, write_result
from raylib.abtest.effects import Estimate, Totals, always_valid, difference, estimates
from raylib.market.experiment import Experiment
from raylib.market.search_logs import Market

RESULT = Path(__file__).parent / "results" / "abtest"
ALPHA = 0.05
EXPECTED = 0.05  # relative effect for which the always valid test is set up; not the one built in
WAYS = (
    "by impressions, one look",
    "by users, one look",
    "by users with CUPED, one look",
    "by users with CUPED, 14 looks, each as if it were the only one",
    "by users with CUPED, 14 looks, always valid",
)


def totals_by_day(experiment: Experiment, generator: np.random.Generator, num_users: int) -> tuple[Any, ...]:
    """One experiment: arm of each user, clicks and impressions before it [U], and by day during it [U, D]."""
    is_treated_U = generator.random(num_users) < 0.5
    arm_U = np.where(is_treated_U, "treated", "control").astype(object)
    events = experiment.events(arm_U, "control", generator)
    user_E = pc.cast(pc.utf8_slice_codeunits(events["user_id"], 1), "int64").to_numpy()
    day_E = events["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
    num_days = experiment.num_days_before + experiment.num_days
    found = []
    for name in ("clicks", "impressions"):
        total_UD = np.bincount(user_E * num_days + day_E, events[name].to_numpy(), num_users * num_days)
        total_UD = total_UD.reshape(num_users, num_days)
        found += [total_UD[:, : experiment.num_days_before].sum(1), total_UD[:, experiment.num_days_before :].cumsum(1)]
    return (is_treated_U, *found)


def decide(
    experiment: Experiment, generator: np.random.Generator, num_users: int
) -> tuple[dict[str, bool], list[float]]:
    """Which of WAYS says that the arms differ in CTR, and the variances without and with CUPED."""
    is_treated_U, past_clicks_U, clicks_UD, past_shown_U, shown_UD = totals_by_day(experiment, generator, num_users)

    def arms(day: int, with_past: bool) -> list[Estimate]:
        parts = []
        for is_here_U in (~is_treated_U, is_treated_U):
            past = (past_clicks_U[is_here_U], past_shown_U[is_here_U]) if with_past else (None, None)
            parts.append(Totals(clicks_UD[is_here_U, day], shown_UD[is_here_U, day], *past))
        return estimates(parts)

    rows = []
    for is_here_U in (~is_treated_U, is_treated_U):
        shown = shown_UD[is_here_U, -1].sum()
        rate = clicks_UD[is_here_U, -1].sum() / shown
        rows.append(Estimate(rate, rate * (1 - rate) / shown, int(shown)))
    plain, adjusted = arms(-1, with_past=False), arms(-1, with_past=True)
    looks = [arms(day, with_past=True) for day in range(experiment.num_days)]
    expected = EXPECTED * adjusted[0].value
    found = (
        difference(rows[1], rows[0], ALPHA)["p"],
        difference(plain[1], plain[0], ALPHA)["p"],
        difference(adjusted[1], adjusted[0], ALPHA)["p"],
        min(difference(treated, control, ALPHA)["p"] for control, treated in looks),
        min(always_valid(treated, control, ALPHA, expected)["p"] for control, treated in looks),
    )
    variances = [control.variance + treated.variance for control, treated in (plain, adjusted)]
    return {way: p < ALPHA for way, p in zip(WAYS, found, strict=True)}, variances


def share(count: int, total: int) -> dict[str, float]:
    """A share with its exact (Clopper-Pearson) interval of 95 %."""
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return {"value": count / total, "low": float(low), "high": float(high)}


def main() -> None:
    """Simulate and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_tests", type=int, default=1000, help="without an effect, and as many with one")
    parser.add_argument("--num_users", type=int, default=4000)
    words = parser.parse_args()
    market = Market(seed=3, num_queries=300, num_items=3000, locales=("en", "es", "ja"), gold_share=1.0)
    worlds = {
        "no effect": Experiment(market, {"control": 0.5, "treated": 0.5}),
        "an effect": Experiment(market, {"control": 0.5, "treated": 0.6}),
    }
    counts: dict[str, Counter[str]] = {name: Counter() for name in worlds}
    ratios: list[float] = []
    for number, (name, experiment) in enumerate(worlds.items()):
        for test in range(words.num_tests):
            decided, (plain, adjusted) = decide(experiment, np.random.default_rng([number, test]), words.num_users)
            counts[name].update(way for way, is_found in decided.items() if is_found)
            ratios.append(adjusted / plain)
    truth = worlds["an effect"].true_ctr
    record = {
        **provenance(f"python -m benchmarks.abtest --num_tests {words.num_tests} --num_users {words.num_users}"),
        "num_tests": words.num_tests,
        "num_users": words.num_users,
        "true_ctr": truth,
        "found": {name: {way: share(counts[name][way], words.num_tests) for way in WAYS} for name in worlds},
        "variance_with_cuped": {
            "median": float(np.median(ratios)),
            "low": float(np.quantile(ratios, 0.025)),
            "high": float(np.quantile(ratios, 0.975)),
        },
    }
    write_result(RESULT, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    truth, cuped = record["true_ctr"], record["variance_with_cuped"]
    relative = math.expm1(math.log(truth["treated"] / truth["control"]))
    lines = [
        "# A/B tests whose truth is known",
        "",
        describe(record, "numpy", "pyarrow"),
        f"{record['num_tests']} tests of {record['num_users']} users without an effect, as many with one of "
        f"{100 * relative:.1f} % of a CTR of {truth['control']:.3f}; level 5 %. CUPED leaves "
        f"{100 * cuped['median']:.0f} % of the variance ({100 * cuped['low']:.0f} to {100 * cuped['high']:.0f}).",
        "",
        "| test | says there is an effect where there is none, % | finds the one that is there, % |",
        "|---|---|---|",
    ]
    for way in WAYS:
        cells = [record["found"][name][way] for name in ("no effect", "an effect")]
        shown = [f"{100 * c['value']:.1f} [{100 * c['low']:.1f}, {100 * c['high']:.1f}]" for c in cells]
        lines.append(f"| {way} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
