"""An experiment's figures: the split first, then every metric of every arm against the control."""

from collections.abc import Mapping, Sequence
from typing import Any

from raylib.abtest.design import detectable, sample_ratio_mismatch, users_needed
from raylib.abtest.effects import always_valid, difference, estimates
from raylib.abtest.users import Users
from raylib.errors import InputError


def analyse(
    users: Users,
    shares: Mapping[str, float],
    control: str,
    metrics: Sequence[str],
    alpha: float,
    power: float,
    relative_effect: float,
    is_any_time: bool,
) -> dict[str, Any]:
    """Figures by metric and arm as plain values; `metrics` of an experiment whose split is wrong are none.

    Raises InputError for an arm that is not among `shares`, and for one without users.
    """
    seen = set(users.arm_U.tolist())
    if unknown := seen - shares.keys():
        raise InputError(f"events of arm(s) {', '.join(sorted(unknown))}, which are not planned: {', '.join(shares)}")
    if missing := shares.keys() - seen:
        raise InputError(f"no user of arm(s) {', '.join(sorted(missing))}; were they logged?")
    num_users = {arm: int((users.arm_U == arm).sum()) for arm in shares}
    split = sample_ratio_mismatch(num_users, shares)
    found: dict[str, Any] = {
        "num_users": num_users,
        "num_contaminated_users": users.num_contaminated,
        "split": split,
        "level": 1 - alpha,
        "looks": "any" if is_any_time else "once",
        "metrics": {},
    }
    if split["is_mismatch"]:
        return found
    for metric in metrics:
        if not any(users.totals(metric, arm).denominator_U.any() for arm in shares):
            continue  # e.g. nobody rated
        found["metrics"][metric] = _compare(users, metric, shares, control, alpha, power, relative_effect, is_any_time)
    return found


def _compare(
    users: Users,
    metric: str,
    shares: Mapping[str, float],
    control: str,
    alpha: float,
    power: float,
    relative_effect: float,
    is_any_time: bool,
) -> dict[str, Any]:
    arms = [control, *(arm for arm in shares if arm != control)]
    totals = [users.totals(metric, arm) for arm in arms]
    if empty := [arm for arm, total in zip(arms, totals, strict=True) if not total.denominator_U.any()]:
        raise InputError(f"{metric}: nothing to divide by in arm(s) {', '.join(empty)}; leave the metric out")
    found = dict(zip(arms, estimates(totals), strict=True))
    base = found[control]
    rows: dict[str, Any] = {control: {"value": base.value}}
    for arm in arms[1:]:
        row = {"value": found[arm].value, **difference(found[arm], base, alpha)}
        if is_any_time:
            row |= always_valid(found[arm], base, alpha, abs(base.value) * relative_effect)
            row.pop("relative", None)  # its interval is that of one look
        variance = found[arm].variance + base.variance
        row["detectable_relative_effect"] = detectable(base.value, variance, alpha, power) if base.value else None
        if base.value:
            row["users_needed"] = users_needed(
                base.value,
                base.variance * base.num_users,
                relative_effect,
                (shares[arm], shares[control]),
                alpha,
                power,
            )
        rows[arm] = row
    return rows


def text_table(found: Mapping[str, Any]) -> str:
    """What the job prints."""
    users = ", ".join(f"{arm} {count:,}" for arm, count in found["num_users"].items())
    lines = [f"users: {users}; in several arms and left out: {found['num_contaminated_users']:,}"]
    split = found["split"]
    if split["is_mismatch"]:
        planned = ", ".join(f"{arm} {count:,.0f}" for arm, count in split["expected_users"].items())
        lines.append(
            f"the split is not as planned ({planned}; p {split['p']:.1g}): users are lost or counted in one arm more "
            "than in another, so no figure of the arms can be compared. Find the cause first"
        )
        return "\n".join(lines)
    lines.append(f"the split is as planned (p {split['p']:.2f})")
    level = f"{100 * found['level']:.0f} %"
    kind = "interval for any number of looks" if found["looks"] == "any" else "interval for one look"
    lines.append(f"{'metric':<8}{'arm':<20}{'value':>12}{'change':>12}  {level} {kind:<34}{'p':>9}  detectable")
    for metric, rows in found["metrics"].items():
        for arm, row in rows.items():
            if "difference" not in row:
                lines.append(f"{metric:<8}{arm:<20}{row['value']:>12.5g}")
                continue
            change = row["difference"]
            interval = f"[{change['low']:+.4g}, {change['high']:+.4g}]"
            seen = row["detectable_relative_effect"]
            lines.append(
                f"{metric:<8}{arm:<20}{row['value']:>12.5g}{change['value']:>+12.4g}  {interval:<39}{row['p']:>9.2g}  "
                + (f"{100 * seen:.2f} %" if seen else "-")
            )
    return "\n".join(lines)
