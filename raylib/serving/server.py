"""Starting, changing and stopping the application on Ray Serve."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx

from raylib.errors import ConfigError, InputError, ParityError
from raylib.serving.settings import ServerSettings

if TYPE_CHECKING:
    from raylib.serving.deployment import Wanted

READY_S = 300.0  # from the proxy's start; seconds are normal, minutes on a starved machine
EXCHANGE_S = 600.0  # for all replicas to load other students
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
def running_server(settings: ServerSettings, wanted: "Wanted") -> Iterator[str]:
    """Serve for the life of a `with` block, inside a Ray session; gives the base URL once the server is ready.

    Raises ParityError when no replica passes the gate and InputError when none can load the students.
    At the end new requests are refused, requests in flight are answered, then the replicas stop. A Serve instance that
    ran before, e.g. on a shared cluster, is left running without this application.
    """
    from ray import serve
    from ray.exceptions import RayActorError
    from ray.serve.context import _get_global_client

    from raylib.serving.deployment import FRONT_APP, STUDENTS_APP, build_front, build_students

    was_running = _get_global_client(raise_if_no_controller_running=False) is not None
    try:
        # serve.start gives up on a slow proxy, but Serve's controller goes on or replaces it: _wait_ready waits.
        with suppress(RayActorError, TimeoutError):
            http = {"host": settings.host, "port": settings.port, "request_timeout_s": 60.0}
            serve.start(http_options=http, logging_config=QUIET)
        try:
            serve.run(build_students(settings, wanted), name=STUDENTS_APP, route_prefix=None, logging_config=QUIET)
        except RuntimeError as error:
            raise _why_not_ready() from error
        serve.run(build_front(settings), name=FRONT_APP, route_prefix="/", logging_config=QUIET)
        url = f"http://{settings.host}:{settings.port}"
        _wait_ready(url)
        yield url
    finally:
        for name in (FRONT_APP, STUDENTS_APP):  # fronts answer what is in flight with the replicas still there
            with suppress(RayActorError):
                serve.delete(name)
        if not was_running:
            serve.shutdown()  # type: ignore[no-untyped-call]


def exchange(wanted: "Wanted") -> None:
    """Have the replicas that run serve other students, and the fronts go by other rules and keys.

    No request waits for it or fails.

    Raises InputError naming the first reason why a replica kept its students, or that they took too long.
    """
    from ray import serve

    from raylib.serving.deployment import CONTROL, STUDENTS_APP

    control = serve.get_deployment_handle(CONTROL, STUDENTS_APP)
    control.want.remote(wanted).result()
    deadline = time.monotonic() + EXCHANGE_S
    while time.monotonic() < deadline:
        states = control.states.remote().result()
        tried = [state for state in states if state["tried"] == wanted.number]
        if failed := [state["load_error"] for state in tried if state["load_error"]]:
            raise InputError(f"the students that served go on: {failed[0]}")
        if states and len(tried) == len(states):
            return
        time.sleep(0.2)
    raise InputError(f"not every replica and front goes by what is new after {EXCHANGE_S:.0f} s; see /v1/model")


class Signals:
    """What a running server was told: to end (SIGTERM, SIGINT), or to look for another student (SIGHUP)."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()
        self._any = threading.Event()

    def note(self, event: threading.Event) -> None:
        """Set an event and wake who waits."""
        event.set()
        self._any.set()

    def wait(self) -> None:
        """Return when something was told."""
        self._any.wait()
        self._any.clear()


@contextmanager
def server_signals() -> Iterator[Signals]:
    """The signals of a server in place of their usual effect; main thread only."""
    signals = Signals()
    events = {signal.SIGTERM: signals.stop, signal.SIGINT: signals.stop, signal.SIGHUP: signals.reload}
    previous = {
        number: signal.signal(number, lambda *_, event=event: signals.note(event))  # type: ignore[misc]
        for number, event in events.items()
    }
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _why_not_ready() -> InputError | ParityError:
    """What the replicas said when they did not start."""
    from ray import serve

    from raylib.serving.deployment import STUDENTS_APP

    application = serve.status().applications.get(STUDENTS_APP)
    messages = [found.message for found in application.deployments.values()] if application else []
    said = "\n".join(message for message in messages if message) or "no replica said why"
    # Serve hands on the traceback; its last line that names one of our errors is the reason
    reasons = [line for line in said.splitlines() if "ParityError" in line or "InputError" in line]
    reason = reasons[-1].split("Error: ", 1)[-1] if reasons else said
    return ParityError(reason) if "ParityError" in said else InputError(f"no replica became ready: {reason}")


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
