"""Load for benchmarks/serving.py: clients in one process, closed loop (n clients that wait) or open loop (arrivals)."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import aiohttp
import numpy as np

TIMEOUT = aiohttp.ClientTimeout(total=60.0)


@dataclass(frozen=True)
class Target:
    """Where and what is asked; each body holds `pairs_a_request` pairs."""

    url: str
    bodies: tuple[bytes, ...]
    pairs_a_request: int
    deadline_ms: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of the requests of one measurement."""

    seconds: float
    latencies_ms: list[float]  # of the answered ones
    refused_ms: list[float]
    statuses: dict[str, int]
    pairs_a_request: int

    def figures(self) -> dict[str, float | dict[str, int] | None]:
        """Pairs a second of what was answered, percentiles of its latency, share refused."""
        num = len(self.latencies_ms) + len(self.refused_ms)
        quantiles = np.quantile(self.latencies_ms, [0.5, 0.95, 0.99]) if self.latencies_ms else [float("nan")] * 3
        return {
            "pairs_a_second": len(self.latencies_ms) * self.pairs_a_request / self.seconds,
            "p50_ms": float(quantiles[0]),
            "p95_ms": float(quantiles[1]),
            "p99_ms": float(quantiles[2]),
            "num_requests": num,
            "share_refused": len(self.refused_ms) / num if num else 0.0,
            "refused_p99_ms": float(np.quantile(self.refused_ms, 0.99)) if self.refused_ms else None,
            "statuses": self.statuses,
        }


class Recorder:
    """Sends requests and keeps what came back."""

    def __init__(self, target: Target, session: aiohttp.ClientSession) -> None:
        self._target, self._session = target, session
        self.latencies_ms: list[float] = []
        self.refused_ms: list[float] = []
        self.statuses: Counter[str] = Counter()

    async def send(self, number: int) -> None:
        """One request, the `number`th body."""
        headers = {"content-type": "application/json"}
        if self._target.deadline_ms:
            headers["x-deadline-ms"] = str(self._target.deadline_ms)
        body = self._target.bodies[number % len(self._target.bodies)]
        started_s = time.perf_counter()
        try:
            async with self._session.post(self._target.url, data=body, headers=headers) as answer:
                await answer.read()
                status = str(answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        took_ms = 1000 * (time.perf_counter() - started_s)
        (self.latencies_ms if status == "200" else self.refused_ms).append(took_ms)
        self.statuses[status] += 1

    def outcome(self, seconds: float) -> Outcome:
        """What was kept."""
        return Outcome(seconds, self.latencies_ms, self.refused_ms, dict(self.statuses), self._target.pairs_a_request)


def closed_loop(target: Target, num_clients: int, seconds: float) -> Outcome:
    """`num_clients` that each send their next request when the last one is answered."""

    async def inside() -> Outcome:
        async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0)) as session:
            recorder = Recorder(target, session)
            numbers = iter(range(10**9))
            started_s = time.perf_counter()

            async def client() -> None:
                while time.perf_counter() - started_s < seconds:
                    await recorder.send(next(numbers))

            await asyncio.gather(*(client() for _ in range(num_clients)))
            return recorder.outcome(time.perf_counter() - started_s)

    return asyncio.run(inside())


def open_loop(target: Target, requests_a_second: float, seconds: float, seed: int = 0) -> Outcome:
    """Requests that come when they come (Poisson), however many are unanswered: latency counts from the arrival."""

    async def inside() -> Outcome:
        gaps_s = np.random.default_rng(seed).exponential(1 / requests_a_second, int(seconds * requests_a_second))
        async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0)) as session:
            recorder = Recorder(target, session)
            started_s = time.perf_counter()
            sent = []
            for number, at_s in enumerate(np.cumsum(gaps_s)):
                await asyncio.sleep(max(0.0, started_s + at_s - time.perf_counter()))
                sent.append(asyncio.create_task(recorder.send(number)))
            await asyncio.gather(*sent)
            return recorder.outcome(time.perf_counter() - started_s)

    return asyncio.run(inside())
