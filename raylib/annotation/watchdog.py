"""Notices when a run does not move, so that it ends instead of hanging."""

from dataclasses import dataclass

MAX_DEATHS_A_UNIT = 25  # engines lost without one finished unit: it is not a bad pair, it is the engine


@dataclass
class Watchdog:
    """Notices that a run does not move, from what is seen of it every few seconds."""

    start_s: float
    stall_s: float
    moved_s: float  # when a request was last seen to end, before that when the first engine was ready or the run began
    is_ready: bool = False
    num_ended: int = 0
    num_units: int = 0
    deaths_then: int = 0  # engines lost when the last unit was finished

    def look(self, now_s: float, num_ended: int, num_units: int, num_deaths: int, is_ready: bool) -> str | None:
        """Why the run should be ended, or None.

        `num_ended` counts requests, those of unfinished units included: it falls when an engine is lost, and rises
        again when its work is done anew, which is movement. `is_ready`: some engine has started.
        """
        if num_ended > self.num_ended or (is_ready and not self.is_ready):
            self.moved_s = now_s
        self.num_ended, self.is_ready = num_ended, is_ready
        if num_units > self.num_units:
            self.num_units, self.deaths_then = num_units, num_deaths
        if num_deaths - self.deaths_then > MAX_DEATHS_A_UNIT:
            return f"{num_deaths - self.deaths_then} engines died without finishing a unit"
        if not is_ready and now_s - self.moved_s > self.start_s:
            return f"no engine is ready after {now_s - self.moved_s:.0f} s (limits.start_s)"
        if is_ready and now_s - self.moved_s > self.stall_s:
            return f"no request has ended for {now_s - self.moved_s:.0f} s (limits.stall_s)"
        return None
