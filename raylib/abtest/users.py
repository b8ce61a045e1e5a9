"""From online events to totals by user: memory grows with the users, not with the events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylib import tables
from raylib.abtest.effects import Floats, Totals
from raylib.errors import InputError

# metric -> (numerator, denominator, factor); RS is the mean human rating
METRICS = {
    "RPM": ("revenue", "impressions", 1000.0),
    "CTR": ("clicks", "impressions", 1.0),
    "RS": ("rating_sum", "num_ratings", 1.0),
}
SUMS = ("impressions", "clicks", "revenue", "rating_sum", "num_ratings")


@dataclass(frozen=True)
class Users:
    """Totals by user during the experiment, and before it."""

    arm_U: np.ndarray
    during: Mapping[str, Floats]  # each of SUMS
    before: Mapping[str, Floats]
    num_events: int
    num_contaminated: int  # users seen in several arms; they are left out
    num_bad: int  # events with a negative or not finite number; they are left out

    def totals(self, metric: str, arm: str) -> Totals:
        """Numerator and denominator of a metric by user of an arm."""
        numerator, denominator, factor = METRICS[metric]
        is_here_U = self.arm_U == arm
        return Totals(
            factor * self.during[numerator][is_here_U],
            self.during[denominator][is_here_U],
            factor * self.before[numerator][is_here_U],
            self.before[denominator][is_here_U],
        )


def read_users(uri: str, start: datetime) -> Users:
    """Sum the events of each user; those before `start` are the past by which CUPED adjusts.

    An event during the experiment has an arm; before it the arm is null or ignored. Raises InputError when no event is
    left, or one during the experiment has no arm.
    """
    parts, num_events, num_bad = [], 0, 0
    for batch in tables.read_batches(uri, tables.EVENTS):
        table = pa.Table.from_batches([batch])
        num_events += table.num_rows
        is_good = _is_good(table)
        num_bad += table.num_rows - (pc.sum(is_good).as_py() or 0)
        table = table.filter(is_good)
        is_during = pc.greater_equal(table["time"], pa.scalar(start, table.schema.field("time").type))
        if pc.any(pc.and_(is_during, pc.is_null(table["arm"]))).as_py():
            raise InputError(
                f"{uri}: an event at or after {start:%Y-%m-%d %H:%M} has no arm; log the arm with every event"
            )
        arm = pc.if_else(is_during, table["arm"], pa.scalar(None, pa.string()))
        columns = {
            "user_id": table["user_id"],
            "arm": arm,
            **{name: pc.cast(table[name], pa.float64()) for name in SUMS[:3]},
            "rating_sum": pc.fill_null(table["rating"], 0.0),
            "num_ratings": pc.cast(pc.is_valid(table["rating"]), pa.float64()),
        }
        parts.append(_summed(pa.table(columns)))
        if len(parts) > 50:
            parts = [_summed(pa.concat_tables(parts))]
    if not parts or num_bad == num_events:
        raise InputError(f"{uri}: no event to analyse ({num_events} rows, {num_bad} of them bad)")
    return _users(_summed(pa.concat_tables(parts)), num_events, num_bad, uri, start)


def _is_good(table: pa.Table) -> pa.ChunkedArray:
    good = pc.and_(pc.is_valid(table["user_id"]), pc.greater_equal(table["impressions"], 0))
    good = pc.and_(good, pc.greater_equal(table["clicks"], 0))
    good = pc.and_(good, pc.and_(pc.is_finite(table["revenue"]), pc.greater_equal(table["revenue"], 0.0)))
    return pc.and_(good, pc.fill_null(pc.is_finite(table["rating"]), True))


def _summed(table: pa.Table) -> pa.Table:
    """Sums by user and arm, under the names of what they sum."""
    grouped = table.group_by(["user_id", "arm"]).aggregate([(name, "sum") for name in SUMS])
    return grouped.select(["user_id", "arm", *(f"{name}_sum" for name in SUMS)]).rename_columns(
        ["user_id", "arm", *SUMS]
    )


def _users(table: pa.Table, num_events: int, num_bad: int, uri: str, start: datetime) -> Users:
    ids, code_R = np.unique(np.asarray(table["user_id"].to_pylist(), dtype=object), return_inverse=True)
    is_during_R = table["arm"].is_valid().to_numpy()
    arms = np.asarray(table["arm"].to_pylist(), dtype=object)
    num_arms_U = np.bincount(code_R[is_during_R], minlength=len(ids))
    arm_U = np.full(len(ids), None, dtype=object)
    arm_U[code_R[is_during_R]] = arms[is_during_R]
    is_kept_U = num_arms_U == 1
    if not is_kept_U.any():
        raise InputError(f"{uri}: no user has events of exactly one arm at or after {start:%Y-%m-%d %H:%M}")
    sums: list[dict[str, Floats]] = []
    for is_wanted_R in (is_during_R, ~is_during_R):
        by_name = {}
        for name in SUMS:
            value_R = table[name].to_numpy()
            totals_U = np.bincount(code_R[is_wanted_R], value_R[is_wanted_R], minlength=len(ids))
            by_name[name] = totals_U[is_kept_U]
        sums.append(by_name)
    return Users(arm_U[is_kept_U], sums[0], sums[1], num_events, int((num_arms_U > 1).sum()), num_bad)
