"""Online events -> what each arm of an experiment changed: RPM, CTR and RS with intervals.

    python -m jobs.abtest --events EVENTS --shares '{control: 0.8, student: 0.1, lrkd: 0.1}' --control control \\
        --start 2026-11-01T00:00:00Z --output runs/abtest

Users are the unit: what one user does is summed first. Events before `start` lower the variance (CUPED). When the users
do not split as planned, nothing else is printed as a result.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raylib.config import JobConfig, main

Metric = Literal["RPM", "CTR", "RS"]


class AbtestConfig(JobConfig):
    """Analyse an A/B test; RPM is revenue by thousand impressions, CTR clicks by impressions, RS the mean rating."""

    output: str = Field(description="run directory to write")
    events: str = Field(description="table of events: file or directory of Parquet files")
    shares: dict[str, float] = Field(
        description="arm -> planned share of the users, together 1; as the server has them"
    )
    control: str = Field(description="the arm that the others are compared with")
    start: str = Field(
        description="first moment of the experiment, ISO 8601 with time zone; what is before it is the past"
    )
    metrics: Annotated[tuple[Metric, ...], Field(strict=False, min_length=1)] = Field(
        ("RPM", "CTR", "RS"), description="what is compared"
    )
    alpha: float = Field(0.05, gt=0.0, lt=0.5, description="share of false alarms of a test")
    power: float = Field(0.8, gt=0.5, lt=1.0, description="at which detectable effects and needed users are given")
    looks: Literal["once", "any"] = Field(
        "once",
        description="once: the end was fixed beforehand; any: the figures may be looked at and stopped every day",
    )
    relative_effect: float = Field(
        0.01, gt=0.0, description="effect to plan for; with `any` the one at which its test is the most powerful"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        from raylib.abtest.assignment import check_shares

        check_shares(self.shares)
        if self.control not in self.shares:
            raise ValueError(f"control: {self.control!r} is not among the shares ({', '.join(self.shares)})")
        try:
            moment = datetime.fromisoformat(self.start)
        except ValueError as error:
            raise ValueError(f"start: {error}") from None
        if moment.tzinfo is None:
            raise ValueError(f"start: {self.start!r} has no time zone; write e.g. 2026-11-01T00:00:00Z")
        return self


def run(config: AbtestConfig) -> dict[str, Any]:
    """Analyse, print, return the metrics."""
    from raylib.abtest.analysis import analyse, text_table
    from raylib.abtest.users import read_users
    from raylib.runs import Run

    run = Run(config.output, "abtest", config)
    if run.is_done:
        return run.metrics()
    run.write_provenance({"events": config.events})
    users = read_users(config.events, datetime.fromisoformat(config.start).astimezone(UTC))
    found = analyse(
        users,
        config.shares,
        config.control,
        config.metrics,
        config.alpha,
        config.power,
        config.relative_effect,
        is_any_time=config.looks == "any",
    )
    print(text_table(found))
    skipped = {"bad_event": users.num_bad}
    return run.finish(users.num_events, users.num_events - users.num_bad, {}, skipped, **found)


if __name__ == "__main__":
    main(AbtestConfig, run, "jobs.abtest")
