"""The queue before the model: batches by tokens, deadlines, and a refusal at once instead of an answer too late.

The queue learns how many tokens a second the model does and how far it strays from that, so it knows how long what
waits will take. A request that would begin or end too late is refused as it comes (`OverloadedError`), one whose
deadline passes while it waits is dropped and not computed (`ExpiredError`), and a batch takes in no more than its most
urgent request has time for: work that nobody waits for any more is what makes an overloaded server useless.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raylib.student.data import TokenPairs

RATE_SMOOTHING = 0.2  # weight of the last batch in the model's rate
CAUTION = 2.0  # usual deviations from the expected duration that a deadline must leave room for
Predict = Callable[[Sequence[TokenPairs]], Awaitable[Sequence[Any]]]


class OverloadedError(Exception):
    """The request would begin too late; `retry_after_s` is when what waits now will be done."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"{retry_after_s:.3f} s of work are waiting")
        self.retry_after_s = retry_after_s


class ExpiredError(Exception):
    """The deadline passed while the request was waiting."""


@dataclass
class Waiting:
    """One request in the queue."""

    pairs: TokenPairs
    num_tokens: int
    deadline_s: float
    answer: "asyncio.Future[Any]"


class TokenQueue:
    """Requests in the order of their arrival, answered in batches of at most `batch_tokens` tokens.

    `predict` answers several requests at once and is called with one batch at a time. A request larger than a batch is
    one alone. `max_wait_s` bounds how long a request may be expected to wait before it begins.
    """

    def __init__(
        self, predict: Predict, batch_tokens: int, max_wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._predict, self._batch_tokens, self._max_wait_s, self._clock = predict, batch_tokens, max_wait_s, clock
        self._waiting: deque[Waiting] = deque()
        self._tokens_waiting = 0
        self._tokens_running = 0
        self._running_since_s = 0.0
        self._worker: asyncio.Task[None] | None = None
        self.tokens_a_second: float | None = None  # None until the first batch is done
        self._deviation = 0.0  # of a batch's duration from what the rate says, as a share of it; smoothed

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens of the requests that have not begun."""
        return self._tokens_waiting

    def expected_wait_s(self) -> float:
        """Seconds until a request that came now would begin; 0 while the model's rate is not known."""
        if self.tokens_a_second is None:
            return 0.0
        done = (self._clock() - self._running_since_s) * self.tokens_a_second if self._tokens_running else 0.0
        return (self._tokens_waiting + max(0.0, self._tokens_running - done)) / self.tokens_a_second

    async def submit(self, pairs: TokenPairs, deadline_s: float) -> Any:
        """The answer of `predict` for these pairs; `deadline_s` is a moment of the clock.

        Raises OverloadedError or ExpiredError; what `predict` raises comes through.
        """
        num_tokens = int(pairs.lengths_N.sum())
        wait_s = self.expected_wait_s()
        # An idle model takes whatever comes: by that it learns that it has become faster.
        if self.tokens_a_second and (self._tokens_waiting or self._tokens_running):
            end_s = self._clock() + self._cautious(wait_s + num_tokens / self.tokens_a_second)
            if wait_s > self._max_wait_s or end_s > deadline_s:
                raise OverloadedError(wait_s)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(pairs, num_tokens, deadline_s, answer))
        self._tokens_waiting += num_tokens
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        """Answer what waits; ends when nothing does."""
        while batch := self._next_batch():
            self._tokens_running = sum(request.num_tokens for request in batch)
            self._running_since_s = self._clock()
            try:
                answers = await self._predict([request.pairs for request in batch])
            except Exception as error:  # it is the requests' to handle; the queue goes on
                for request in batch:
                    if not request.answer.done():
                        request.answer.set_exception(error)
            else:
                self._learn(self._tokens_running, self._clock() - self._running_since_s)
                for request, answer in zip(batch, answers, strict=True):
                    if not request.answer.done():  # its client may have gone
                        request.answer.set_result(answer)
            finally:
                self._tokens_running = 0

    def _cautious(self, seconds: float) -> float:
        return seconds * (1 + CAUTION * self._deviation)

    def _has_room(self, batch: list[Waiting], total: int) -> bool:
        """Whether the next request still fits into a batch; all answers of a batch come at its end."""
        if not batch:
            return True
        total += self._waiting[0].num_tokens
        seconds = self._cautious(total / self.tokens_a_second) if self.tokens_a_second else 0.0
        is_in_time = self._clock() + seconds <= min(request.deadline_s for request in batch)
        return total <= self._batch_tokens and is_in_time

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        total, now_s = 0, self._clock()
        while self._waiting and self._has_room(batch, total):
            request = self._waiting.popleft()
            self._tokens_waiting -= request.num_tokens
            if request.answer.done():  # cancelled: the client has gone
                continue
            if now_s >= request.deadline_s:
                request.answer.set_exception(ExpiredError())
                continue
            batch.append(request)
            total += request.num_tokens
        return batch

    def _learn(self, num_tokens: int, seconds: float) -> None:
        rate = num_tokens / max(seconds, 1e-6)
        known = self.tokens_a_second
        if known is None:
            self.tokens_a_second = rate
            return
        self.tokens_a_second = (1 - RATE_SMOOTHING) * known + RATE_SMOOTHING * rate
        # At most 1: a single batch that took ten times as long must not close the door.
        strayed = min(1.0, abs(seconds * known / num_tokens - 1))
        self._deviation = (1 - RATE_SMOOTHING) * self._deviation + RATE_SMOOTHING * strayed
