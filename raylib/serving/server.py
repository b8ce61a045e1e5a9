"""Starting and stopping the application on Ray Serve."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from raylib.errors import ConfigError, InputError
from raylib.serving.settings import ServerSettings

APPLICATION = "tricot"
READY_S = 300.0  # from the proxy's start; seconds are normal, minutes on a starved machine
QUIET = {"log_level": "WARNING", "enable_access_log": False}  # no line a request


def check_port(host: str, port: int) -> None:
    """Raise ConfigError when another process listens on the address, or the address is not ours."""
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        raise ConfigError(
            f"port: cannot listen on {host}:{port} ({error.strerror}); stop what listens there or choose another port"
        ) from None


@contextmanager
def running_server(settings: ServerSettings) -> Iterator[str]:
    """Serve for the life of a `with` block, inside a Ray session; gives the base URL once the server is ready.

    At the end new requests are refused, requests in flight are answered, then the replicas stop. A Serve instance that
    ran before, e.g. on a shared cluster, is left running without this application.
    """
    from ray import serve
    from ray.exceptions import RayActorError
    from ray.serve.context import _get_global_client

    from raylib.serving.app import build

    was_running = _get_global_client(raise_if_no_controller_running=False) is not None
    try:
        # serve.start gives up on a slow proxy, but Serve's controller goes on or replaces it: _wait_ready waits.
        with suppress(RayActorError, TimeoutError):
            http = {"host": settings.host, "port": settings.port, "request_timeout_s": 60.0}
            serve.start(http_options=http, logging_config=QUIET)
        serve.run(build(settings), name=APPLICATION, route_prefix="/", logging_config=QUIET)
        url = f"http://{settings.host}:{settings.port}"
        _wait_ready(url)
        yield url
    finally:
        with suppress(RayActorError):
            serve.delete(APPLICATION)
        if not was_running:
            serve.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, in place of their usual effect; main thread only."""
    stop = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_ready(url: str) -> None:
    deadline, last = time.monotonic() + READY_S, "no answer"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{url}/readyz", timeout=5.0)
            if answer.status_code == 200:
                return
            last = f"status {answer.status_code}"
        except httpx.HTTPError as error:
            last = str(error)
        time.sleep(0.1)
    raise InputError(
        f"{url}/readyz: not ready after {READY_S:.0f} s ({last}); is another Serve instance on this cluster?"
    )
