"""The Ray Data actor: turns units of pairs into finished unit files."""

import json
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from raylib.annotation import attempts
from raylib.annotation.attempts import Attempt
from raylib.annotation.heartbeat import Heartbeat
from raylib.annotation.open_units import AnnotationTask, OpenUnit, begin_unit, settle, unsent_requests
from raylib.annotation.requests import Prompt, Rejection, Request, TooLongError, UnitStats
from raylib.annotation.units import Unit, done_units, read_unit, unit_stats, write_unit
from raylib.errors import TricotError

ENGINE_DIED = 70  # exit status of an actor whose engine raised
MAX_WRITING = 8  # units that wait to be written; more would say that the storage is slower than the engine


class Annotator:
    """Holds one engine; called with a batch of unit indices, writes each unit's file and yields its counts.

    The engine has a thread of its own that answers the requests of all calls under way, so that it goes on with the
    next call's units while the last answers of a call come in. Units are read and written by further threads.
    """

    def __init__(self, task: AnnotationTask, board: Any) -> None:
        self.task = task
        self.heartbeat = Heartbeat(board)
        self.heartbeat.beat("starting")
        self._io = ThreadPoolExecutor(2, "unit")
        self._writing: deque[tuple[OpenUnit, dict[str, Any], Future[None]]] = deque()
        self._open_units: dict[int, OpenUnit] = {}
        self._feeds: deque[Iterator[Request]] = deque()  # of the calls, in their order
        self._isolated: deque[tuple[Unit, Attempt]] = deque()
        # What calls and the engine's thread share besides the queues: units under way, counts of the finished ones
        # that their call has not seen, and why the engine's thread has ended.
        self._changed = threading.Condition()
        self._under_way: set[int] = set()
        self._finished: dict[int, dict[str, Any]] = {}
        self._error: TricotError | None = None
        started: Future[None] = Future()
        # A daemon, as it never ends: an executor's thread would be waited for when the process ends.
        threading.Thread(target=self._be_engine, args=(started,), daemon=True, name="engine").start()
        started.result()
        self.ready_at_s = time.time()

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Yield one row a unit, in the batch's order.

        Ray retries the whole call when the process dies: units that are written already are only reported, and the
        fixed order lets Ray tell which rows it has seen.
        """
        order = [int(index) for index in batch["unit"]]
        written = done_units(self.task.output)
        found = {index: unit_stats(self.task.output, index) for index in order if index in written}
        replay = self.task.replay
        stats = {index: one for index, one in found.items() if one and UnitStats.from_dict(one).is_done(replay)}
        with self._changed:
            unasked = [index for index in order if index not in stats and index not in self._under_way]
            self._under_way.update(unasked)
            self._feeds.append(self._requests_of_units([self.task.plan.unit(index) for index in unasked]))
            self._changed.notify_all()
        for index in order:
            counts = stats[index] if index in stats else self._counts_of(index)
            yield {"unit": [index], "stats": [json.dumps(counts)], "ready_at_s": [self.ready_at_s]}

    def _counts_of(self, index: int) -> dict[str, Any]:
        """Wait until a unit is written."""
        with self._changed:
            self._changed.wait_for(lambda: index in self._finished or index not in self._under_way or self._error)
            if index in self._finished:
                self._under_way.discard(index)
                self._changed.notify_all()
                return self._finished.pop(index)
            if self._error:
                raise self._error
        counts = unit_stats(self.task.output, index)  # another call asked for the same unit and has seen it
        assert counts is not None
        return counts

    def _be_engine(self, started: "Future[None]") -> None:
        """The engine's thread: start it, then do whatever the calls want done, as long as the process lives.

        Units over which engines have died come last, their pairs one at a time (see raylib.annotation.attempts).
        """
        try:
            self.engine = self.task.engine.start(self.task.sampling)
        except BaseException as error:  # the constructor raises it
            started.set_exception(error)
            return
        self.heartbeat.beat("idle")
        started.set_result(None)
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._feeds)
                self.heartbeat.beat("working", self._open_units.values())
                while self._feeds or self._isolated:
                    self._work(self._next_of_calls)
                    if self._isolated:
                        self._isolate(*self._isolated.popleft())
                self.heartbeat.beat("idle")
        except TricotError as error:  # the settings or the disk are wrong: another engine would find the same
            with self._changed:
                self._error = error
                self._changed.notify_all()
        except BaseException:  # whatever an engine raises: Ray Data would end the job, and this engine is lost
            traceback.print_exc()
            os._exit(ENGINE_DIED)

    def _next_of_calls(self) -> Request | None:
        while self._feeds:
            request = next(self._feeds[0], None)
            if request:
                return request
            self._feeds.popleft()
        return None

    def _isolate(self, unit: Unit, attempt: Attempt) -> None:
        """One pair at a time, nothing else in the engine."""
        pairs = read_unit(self.task.plan, unit)
        open_unit = self._open_units[unit.index] = begin_unit(self.task, unit, pairs)
        for number, pair in enumerate(pairs):
            pair_id = pair["pair_id"]
            if attempt.is_hopeless(pair_id):
                for request in unsent_requests(self.task, unit, number, pair):
                    if request.position in open_unit.rows:
                        continue
                    open_unit.reject(Rejection(request, "engine", f"{attempts.DEATHS_OF_A_PAIR} engines died over it"))
                continue
            deaths = attempt.deaths.get(pair_id, 0)
            attempt.deaths[pair_id] = deaths + 1  # true if this process does not come to the next line but one
            attempts.write(self.task.output, unit.name, attempt)
            requests = self._requests_of_pair(open_unit, number, pair)
            self._work(lambda requests=requests: next(requests, None))  # type: ignore[misc]
            attempt.deaths[pair_id] = deaths
        self._close()
        self._report_written(len(self._writing))

    def _work(self, next_request: Callable[[], Request | None]) -> None:
        """Send requests as the engine has room, settle what comes back, write units as they get complete.

        Ends when nothing runs, nothing more comes and all complete units are written.
        """
        again: deque[Request] = deque()
        for outcomes in self.engine.stream(lambda: again.popleft() if again else next_request()):
            for outcome in outcomes:
                request = settle(self.task, self._open_units[outcome.request.unit], outcome)
                if request:
                    again.append(request)
            self.heartbeat.working(self._open_units.values())
            self._close()
            self._report_written(len(self._writing) - MAX_WRITING)
        self._close()  # units of which no request could be sent
        self._report_written(len(self._writing))

    def _requests_of_units(self, units: Sequence[Unit]) -> Iterator[Request]:
        """The requests of the units, unit by unit, pair by pair, so that neighbours share their prefill."""
        following = deque(units)
        reading = self._io.submit(read_unit, self.task.plan, units[0]) if units else None
        while reading:
            unit, read = following.popleft(), reading
            reading = self._io.submit(read_unit, self.task.plan, following[0]) if following else None
            attempt = attempts.begin(self.task.output, unit.name, self.task.driver)
            if attempt.is_isolated:
                self._isolated.append((unit, attempt))
                continue
            pairs = read.result()
            open_unit = self._open_units[unit.index] = begin_unit(self.task, unit, pairs)
            for number, pair in enumerate(pairs):
                yield from self._requests_of_pair(open_unit, number, pair)

    def _requests_of_pair(self, open_unit: OpenUnit, number: int, pair: dict[str, Any]) -> Iterator[Request]:
        """The requests that can be sent; the others are rejected here."""
        prompts: dict[str, Prompt | Rejection] = {}
        for unsent in unsent_requests(self.task, open_unit.unit, number, pair):
            if unsent.position in open_unit.rows:
                continue
            request = replace(unsent, attempt=open_unit.earlier_attempts.get(unsent.position, 0) + 1)
            if request.perspective not in prompts:
                prompts[request.perspective] = self._prompt(request, pair)
            prompt = prompts[request.perspective]
            if isinstance(prompt, Prompt):
                yield replace(request, prompt=prompt)
            else:
                open_unit.reject(replace(prompt, request=request))

    def _prompt(self, request: Request, pair: dict[str, Any]) -> Prompt | Rejection:
        blank = [name for name in ("query", "title") if not pair[name].strip()]
        if blank:
            return Rejection(request, "bad_text", f"blank {' and '.join(blank)}")
        perspective = next(one for one in self.task.perspectives if one.name == request.perspective)
        try:
            return self.engine.prompt(perspective.messages(self.task.schema, pair, self.task.num_few_shots))
        except TooLongError as error:
            return Rejection(request, "too_long", str(error))

    def _close(self) -> None:
        """Hand the units that are complete to the threads that write."""
        for open_unit in [open_unit for open_unit in self._open_units.values() if open_unit.is_complete]:
            del self._open_units[open_unit.unit.index]
            stats = open_unit.stats.to_dict()
            self._writing.append((open_unit, stats, self._io.submit(self._write, open_unit, stats)))

    def _write(self, open_unit: OpenUnit, stats: dict[str, Any]) -> None:
        rows = [open_unit.rows[position] for position in sorted(open_unit.rows)]
        rejected = [open_unit.rejected[position] for position in sorted(open_unit.rejected)]
        write_unit(self.task.output, open_unit.unit, rows, rejected, stats)
        attempts.end(self.task.output, open_unit.unit.name)

    def _report_written(self, num_awaited: int) -> None:
        """Tell the calls which units are written, at least `num_awaited` of those being so; raises as a write did."""
        while self._writing and (num_awaited > 0 or self._writing[0][2].done()):
            open_unit, stats, write = self._writing.popleft()
            write.result()
            num_awaited -= 1
            self.heartbeat.count(open_unit.stats)
            with self._changed:
                self._finished[open_unit.unit.index] = stats
                self._changed.notify_all()
