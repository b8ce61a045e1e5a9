"""The server as Ray Serve deployments: replicas of the student, and what tells them what to serve and adds up counts.

Students are exchanged inside the replicas that run, not by new replicas: Serve would stop one before it starts its
successor, and with a single replica nobody would answer meanwhile.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from ray import serve

from raylib.serving.counts import Ledger
from raylib.serving.service import Service
from raylib.serving.settings import ModelRef, ServerSettings
from raylib.serving.web import build_app

REPORT_EVERY_S = 1.0
CONTROL = "Control"  # name of its deployment


@dataclass(frozen=True)
class Wanted:
    """What all replicas are to serve."""

    models: Mapping[str, ModelRef]
    parity_file: str | None


class Control:
    """Holds what is wanted, and hears every second from every replica what it serves and what it has counted."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._ledger = Ledger()

    def want(self, wanted: Wanted) -> None:
        """From now on this is to be served."""
        self._wanted = wanted

    def wanted(self) -> Wanted:
        """What is to be served."""
        return self._wanted

    def post(self, replica: str, report: dict[str, Any]) -> Wanted:
        """Hear a replica; answers what it is to serve."""
        self._ledger.post(replica, report)
        return self._wanted

    def states(self) -> dict[str, dict[str, Any]]:
        """`wanted` (fingerprint by model), `models` and `load_error` of each replica that still reports."""
        return {replica: report["state"] for replica, report in self._ledger.heard().items()}

    def exposition(self) -> bytes:
        """The counts of all replicas for Prometheus."""
        return self._ledger.exposition()


@serve.deployment
@serve.ingress()
class StudentServer:
    """One replica."""

    async def __init__(self, settings: ServerSettings, control: Any) -> None:  # type: ignore[misc]  # Serve awaits it
        """A replica without a student that passes the parity gate does not become ready."""
        import torch

        torch.set_num_threads(max(1, int(settings.num_cpus)))
        self._service = Service(settings)
        self._control = control
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._tried: Wanted | None = None
        await self._serve(await control.wanted.remote())
        self._reporting = asyncio.create_task(self._report())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for the application once `__init__` is done."""
        return build_app(self._service, self._exposition)

    def __del__(self) -> None:
        self._service.close()

    async def _serve(self, wanted: Wanted) -> None:
        if wanted != self._tried:
            self._tried = wanted
            load = self._service.load
            await asyncio.get_running_loop().run_in_executor(None, load, wanted.models, wanted.parity_file)

    async def _report(self) -> None:
        while True:
            try:
                await self._serve(await self._post())
            except Exception as error:  # Control is being restarted: what it counted comes again with the next report
                print(f"no report to {CONTROL}: {error}", flush=True)
            await asyncio.sleep(REPORT_EVERY_S)

    async def _post(self) -> Wanted:
        state = {
            "wanted": {name: model.fingerprint for name, model in self._tried.models.items()} if self._tried else {},
            "models": {name: student.fingerprint for name, student in self._service.students.items()},
            "load_error": self._service.load_error,
        }
        report = {**self._service.counts.report(self._service.gauges()), "state": state}
        wanted: Wanted = await self._control.post.remote(self._replica, report)
        return wanted

    async def _exposition(self) -> bytes:
        await self._post()
        exposition: bytes = await self._control.exposition.remote()
        return exposition


def build(settings: ServerSettings, wanted: Wanted) -> serve.Application:
    """The application with its bounds: replicas, queue, batches, draining."""
    autoscaling = {
        "min_replicas": settings.min_replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.target_ongoing_requests,
    }
    is_fixed = settings.min_replicas == settings.max_replicas
    scale: dict[str, Any] = {"num_replicas": settings.min_replicas} if is_fixed else {"autoscaling_config": autoscaling}
    control = serve.deployment(Control).options(name=CONTROL, ray_actor_options={"num_cpus": 0})  # type: ignore[attr-defined]
    application: serve.Application = StudentServer.options(  # type: ignore[attr-defined]
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        graceful_shutdown_timeout_s=settings.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
        max_constructor_retry_count=2,
        **scale,
    ).bind(settings, control.bind(wanted))
    return application
