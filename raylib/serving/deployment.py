"""The server on Ray Serve: fronts that take requests, replicas that hold the students, and what keeps them together.

A front sends the items on to a replica, and to another one when it dies: Serve's own proxy does not repeat a request.
Students are exchanged inside the replicas that run, not by new replicas: Serve would stop one before it starts its
successor, and with a single replica nobody would answer meanwhile.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from raylib.serving.counts import Counts, Ledger
from raylib.serving.service import Items, Service
from raylib.serving.settings import ModelRef, Policy, ServerSettings
from raylib.serving.students import Facts, NotScored, Scored, Students
from raylib.serving.web import build_app

FRONT_APP, STUDENTS_APP = "tricot", "tricot-students"  # two, so that fronts end before what they ask does
CONTROL, STUDENT, FRONT = "Control", "StudentReplica", "Front"  # names of the deployments
REPORT_EVERY_S = 1.0
RETRY_AFTER_S = 0.05  # until another replica is asked
WAY_SMOOTHING = 0.1  # weight of the last answer in what its way takes
# glibc would give a batch's memory back to the system and fetch it again for the next: 14,000 page faults for 100
# pairs, 5 % of the time in float32 and 11 % in bfloat16. It reads these as the process starts.
REPLICA_ENV = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


@dataclass(frozen=True)
class Wanted:
    """What all replicas are to serve, and by which rules and keys the fronts go."""

    models: Mapping[str, ModelRef]
    parity_file: str | None
    policy: Policy
    number: int = 0  # another one each time, so that what was refused once is tried again when asked for again


class Control:
    """Holds what is wanted, and hears every second from every process what it serves and what it has counted."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._ledger = Ledger()

    def want(self, wanted: Wanted) -> None:
        """From now on this is to be served."""
        self._wanted = wanted

    def wanted(self) -> Wanted:
        """What is to be served."""
        return self._wanted

    def post(self, process: str, report: dict[str, Any]) -> Wanted:
        """Hear a process; answers what is to be served."""
        self._ledger.post(process, report)
        return self._wanted

    def states(self) -> list[dict[str, Any]]:
        """Of each process that still reports: number of the `Wanted` it tried last, and why it did not take it."""
        return [report["state"] for report in self._ledger.heard().values() if "state" in report]

    def exposition(self) -> bytes:
        """The counts of all processes for Prometheus."""
        return self._ledger.exposition()


class StudentReplica:
    """One replica; without a student that passes the parity gate it does not become ready."""

    async def __init__(self, settings: ServerSettings, control: Any) -> None:  # type: ignore[misc]  # Serve awaits it
        import torch

        torch.set_num_threads(max(1, int(settings.num_cpus)))
        self._counts = Counts()
        self._students = Students(settings, self._counts)
        self._control = control
        self._tried: Wanted | None = None
        await self._serve(await control.wanted.remote())
        self._reporting = asyncio.create_task(self._report())

    async def score(
        self, name: str, query: str, items: Items, remaining_s: float, has_latents: bool
    ) -> Scored | NotScored:
        """As `Students.score`."""
        return await self._students.score(name, query, items, remaining_s, has_latents)

    async def facts(self) -> Facts:
        """As `Students.facts`."""
        return await self._students.facts()

    async def _serve(self, wanted: Wanted) -> None:
        if wanted != self._tried:
            self._tried = wanted
            load = self._students.load
            await asyncio.get_running_loop().run_in_executor(None, load, wanted.models, wanted.parity_file)

    async def _report(self) -> None:
        name = serve.get_replica_context().replica_id.unique_id
        while True:
            facts = await self._students.facts()
            state = {"tried": self._tried.number if self._tried else None, "load_error": facts.load_error}
            gauges = {"waiting_tokens": float(self._students.num_waiting_tokens), "replicas": 1.0}
            try:
                await self._serve(
                    await self._control.post.remote(name, {**self._counts.report(gauges), "state": state})
                )
            except Exception as error:  # it may be being restarted; it hears all counts with the next report
                print(f"no report to {CONTROL}: {error}", flush=True)
            await asyncio.sleep(REPORT_EVERY_S)


class Replicas:
    """All replicas as a front sees them."""

    def __init__(self, counts: Counts) -> None:
        self._handle = serve.get_deployment_handle(STUDENT, STUDENTS_APP)
        self._counts = counts
        self._way_s = 0.0  # to a replica and back, which it must leave of the time that remains

    async def score(
        self, name: str, query: str, items: Items, remaining_s: float, has_latents: bool
    ) -> Scored | NotScored:
        """The answer of one of them; scoring changes nothing, so what a lost replica was asked is asked again."""
        deadline_s = time.monotonic() + remaining_s
        while (left_s := deadline_s - (asked_s := time.monotonic())) > 0:
            try:
                answer = self._handle.score.remote(
                    name, query, items, left_s - min(self._way_s, left_s / 2), has_latents
                )
                scored = await asyncio.wait_for(_awaited(answer), left_s)
                if isinstance(scored, Scored):
                    way_s = time.monotonic() - asked_s - scored.seconds
                    self._way_s += WAY_SMOOTHING * (way_s - self._way_s)
                return scored
            except TimeoutError:
                break
            except BackPressureError:
                self._counts.add("queue_full", name)
                return NotScored("queue_full", 1.0)
            except RayActorError:
                self._counts.add("retried")
                await asyncio.sleep(RETRY_AFTER_S)
        self._counts.add("expired", name)
        return NotScored("expired")

    async def facts(self) -> Facts:
        """What one of them serves; waits until there is one."""
        while True:
            try:
                facts: Facts = await self._handle.facts.remote()
                return facts
            except (RayActorError, BackPressureError):
                await asyncio.sleep(RETRY_AFTER_S)


async def _awaited(answer: Any) -> Scored | NotScored:
    scored: Scored | NotScored = await answer
    return scored


@serve.ingress()
class Front:
    """Takes requests and answers them with what replicas score."""

    async def __init__(self, settings: ServerSettings) -> None:  # type: ignore[misc]  # Serve awaits it
        self._counts = Counts()
        self._control = serve.get_deployment_handle(CONTROL, STUDENTS_APP)
        wanted = await self._control.wanted.remote()
        self._service = Service(settings, Replicas(self._counts), self._counts, wanted.policy)
        self._adopted = wanted.number
        self._name = serve.get_replica_context().replica_id.unique_id
        await self._service.refresh()
        self._reporting = asyncio.create_task(self._report())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for the application once `__init__` is done."""
        return build_app(self._service, self._exposition)

    def __del__(self) -> None:
        self._service.close()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            try:
                wanted = await self._post()
                self._service.adopt(wanted.policy)
                await self._service.refresh()
                self._adopted = wanted.number
            except Exception as error:  # as above
                print(f"no report to {CONTROL}: {error}", flush=True)

    async def _post(self) -> Wanted:
        state = {"tried": self._adopted, "load_error": None}
        wanted: Wanted = await self._control.post.remote(self._name, {**self._counts.report({}), "state": state})
        return wanted

    async def _exposition(self) -> bytes:
        await self._post()
        exposition: bytes = await self._control.exposition.remote()
        return exposition


def build_students(settings: ServerSettings, wanted: Wanted) -> serve.Application:
    """The replicas and what they report to."""
    # Serve would look at the mean of the last 30 s however short the delays are.
    look_back_s = max(2.0, min(30.0, settings.upscale_delay_s, settings.downscale_delay_s))
    autoscaling = {
        "min_replicas": settings.min_replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.target_ongoing_requests,
        "upscale_delay_s": settings.upscale_delay_s,
        "downscale_delay_s": settings.downscale_delay_s,
        "look_back_period_s": look_back_s,
    }
    is_fixed = settings.min_replicas == settings.max_replicas
    scale: dict[str, Any] = {"num_replicas": settings.min_replicas} if is_fixed else {"autoscaling_config": autoscaling}
    control = serve.deployment(Control).options(name=CONTROL, ray_actor_options={"num_cpus": 0})  # type: ignore[attr-defined]
    application: serve.Application = (
        serve.deployment(StudentReplica)  # type: ignore[attr-defined]
        .options(
            name=STUDENT,
            ray_actor_options={
                "num_cpus": settings.num_cpus,
                "num_gpus": settings.num_gpus,
                "runtime_env": {"env_vars": REPLICA_ENV},
            },
            max_ongoing_requests=settings.max_ongoing_requests,
            max_queued_requests=settings.max_queued_requests,
            graceful_shutdown_timeout_s=settings.drain_s,
            graceful_shutdown_wait_loop_s=0.2,
            max_constructor_retry_count=2,
            **scale,
        )
        .bind(settings, control.bind(wanted))
    )
    return application


def build_front(settings: ServerSettings) -> serve.Application:
    """What takes requests. It needs little: the work is the replicas'.

    It takes more than they take and let wait, so that it is they that refuse, as JSON with a reason. The proxy would
    refuse in plain text, also a burst that it has not handed on yet; what waits there is handed on at once.
    """
    most = 2 * (settings.max_ongoing_requests * settings.max_replicas + settings.max_queued_requests)
    application: serve.Application = (
        serve.deployment(Front)  # type: ignore[attr-defined]
        .options(
            name=FRONT,
            num_replicas=settings.num_fronts,
            ray_actor_options={"num_cpus": 0},
            max_ongoing_requests=most,
            max_queued_requests=-1,
            graceful_shutdown_timeout_s=settings.drain_s,
            graceful_shutdown_wait_loop_s=0.2,
        )
        .bind(settings)
    )
    return application
