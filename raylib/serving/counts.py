"""What a server counts, for Prometheus: each process counts for itself, a ledger adds them up for /metrics.

A scrape reaches whichever process the proxy chooses, so a process's own figures would jump from scrape to scrape.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

Key = tuple[str, tuple[str, ...]]  # name of a metric, values of its labels
Counted = dict[Key, float]
SILENT_S = 10.0  # without a report for so long a process's gauges are no longer true
BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
COUNTERS = {  # name -> what it counts, its labels
    "requests": ("requests answered or refused", ("path", "status")),
    "items": ("items scored, cached ones included", ("model",)),
    "tokens": ("tokens the model read", ("model",)),
    "batches": ("batches the model scored", ("model",)),
    "cache_hits": ("items found in the score cache", ("model",)),
    "cache_misses": ("items not found in the score cache", ("model",)),
    "overloaded": ("requests refused because too much was waiting", ("model",)),
    "queue_full": ("requests refused because as many were waiting for a replica as may", ("model",)),
    "expired": ("requests dropped because their deadline passed while they waited", ("model",)),
    "retried": ("requests sent to another replica because theirs was lost", ()),
    "rule_applications": ("items a business rule changed", ("rule",)),
    "assigned": ("requests by arm of the experiment", ("arm",)),
    "shadow": ("requests for the shadow model", ("result",)),
    "decisions": ("rows of the decision log", ("result",)),
}
GAUGES = {"waiting_tokens": "tokens in the queues of the replicas", "replicas": "replicas that hold students"}
LATENCY = "request_seconds"


class Counts:
    """The counts of this process."""

    def __init__(self) -> None:
        self.counters: Counted = defaultdict(float)
        self.latency_sum_s: dict[str, float] = defaultdict(float)  # by path
        self.latency_buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS_S) + 1))

    def add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Count; `name` and the labels' order are those of COUNTERS."""
        self.counters[name, labels] += amount

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count one request."""
        self.add("requests", path, str(status))
        self.latency_sum_s[path] += seconds
        self.latency_buckets[path][bisect_left(BUCKETS_S, seconds)] += 1

    def report(self, gauges: Mapping[str, float]) -> dict[str, Any]:
        """All of it, as it crosses processes."""
        return {
            "counters": dict(self.counters),
            "latency_sum_s": dict(self.latency_sum_s),
            "latency_buckets": {path: list(counts) for path, counts in self.latency_buckets.items()},
            "gauges": dict(gauges),
        }


class Measured:
    """ASGI middleware that counts requests by path and status, with their time in the server."""

    def __init__(self, app: Callable[..., Awaitable[None]], counts: Counts, paths: tuple[str, ...]) -> None:
        self._app, self._counts, self._paths = app, counts, paths

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass on and measure; paths that are not served are one, or a scanner would fill the memory."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s, status = time.monotonic(), 500

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._counts.observe(path, status, time.monotonic() - started_s)


class Ledger:
    """The last report of each process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[str, tuple[float, dict[str, Any]]] = {}

    def post(self, process: str, report: dict[str, Any]) -> None:
        """Keep a report in place of the process's earlier one; counts of processes that ended stay."""
        self._reports[process] = (self._clock(), report)

    def heard(self) -> dict[str, dict[str, Any]]:
        """The last reports of the processes that still report."""
        now_s = self._clock()
        return {process: report for process, (at_s, report) in self._reports.items() if now_s - at_s < SILENT_S}

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(self)  # type: ignore[arg-type]
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """The metrics, as prometheus_client asks for them."""
        reports = [report for _, report in self._reports.values()]
        heard = self.heard().values()
        for name, (text, labels) in COUNTERS.items():
            family = CounterMetricFamily(f"tricot_{name}", text, labels=labels)
            total: dict[tuple[str, ...], float] = defaultdict(float)
            for report in reports:
                for (found, values), amount in report["counters"].items():
                    if found == name:
                        total[values] += amount
            for values, amount in sorted(total.items()):
                family.add_metric(list(values), amount)
            yield family
        yield self._latency(reports)
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"tricot_{name}", text, sum(report["gauges"].get(name, 0.0) for report in heard))

    def _latency(self, reports: list[dict[str, Any]]) -> Metric:
        family = HistogramMetricFamily(f"tricot_{LATENCY}", "time in the server, queue included", labels=("path",))
        for path in sorted({path for report in reports for path in report["latency_buckets"]}):
            found = [report["latency_buckets"][path] for report in reports if path in report["latency_buckets"]]
            counts = [sum(column) for column in zip(*found, strict=True)]
            bounds = [*map(str, BUCKETS_S), "+Inf"]
            upto = [(bound, float(sum(counts[: number + 1]))) for number, bound in enumerate(bounds)]
            family.add_metric([path], upto, sum(report["latency_sum_s"].get(path, 0.0) for report in reports))
        return family
