"""The queue with a clock and a model that the test moves by hand."""

import asyncio

import numpy as np
import pytest

from raylib.serving.queue import ExpiredError, OverloadedError, TokenQueue
from raylib.student.data import TokenPairs

LATER = 1e9


def pairs(num_tokens: int) -> TokenPairs:
    return TokenPairs(np.zeros(num_tokens, np.int32), np.array([0, num_tokens]), np.zeros(1, np.int32))


class Model:
    """Answers a batch when told to, `tokens_a_second` of its clock later."""

    def __init__(self, tokens_a_second=100.0):
        self.now_s, self.tokens_a_second = 0.0, tokens_a_second
        self.batches, self.may_go, self.fails_at = [], asyncio.Event(), None

    async def predict(self, requests):
        self.batches.append([int(one.lengths_N.sum()) for one in requests])
        await self.may_go.wait()
        self.now_s += sum(self.batches[-1]) / self.tokens_a_second
        if self.fails_at in self.batches[-1]:
            raise RuntimeError("no memory")
        return [f"answer to {size}" for size in self.batches[-1]]


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def run(test, **settings):
    async def inside():
        model = Model()
        queue = TokenQueue(
            model.predict, **{"batch_tokens": 100, "max_wait_s": 60.0, **settings}, clock=lambda: model.now_s
        )
        await test(model, queue)

    asyncio.run(inside())


def test_what_waits_together_is_one_batch_within_the_budget():
    async def test(model, queue):
        asked = [asyncio.create_task(queue.submit(pairs(size), LATER)) for size in (10, 60, 30, 20, 300, 5)]
        await settle()
        model.may_go.set()
        assert await asyncio.gather(*asked) == [f"answer to {size}" for size in (10, 60, 30, 20, 300, 5)]
        assert model.batches == [[10, 60, 30], [20], [300], [5]]

    run(test)


def test_expired_work_is_dropped_and_not_computed():
    async def test(model, queue):
        first = asyncio.create_task(queue.submit(pairs(50), LATER))
        await settle()
        late, patient = (asyncio.create_task(queue.submit(pairs(10), deadline)) for deadline in (0.4, LATER))
        await settle()
        model.may_go.set()  # the first takes half a second
        assert await first == "answer to 50"
        with pytest.raises(ExpiredError):
            await late
        assert await patient == "answer to 10"
        assert model.batches == [[50], [10]]

    run(test)


def test_a_request_that_would_be_late_is_refused_as_it_comes():
    async def test(model, queue):
        model.may_go.set()
        await queue.submit(pairs(100), LATER)
        assert queue.tokens_a_second == pytest.approx(100.0)
        model.may_go.clear()
        running = [asyncio.create_task(queue.submit(pairs(100), LATER)) for _ in range(3)]
        await settle()
        assert queue.expected_wait_s() == pytest.approx(3.0)
        model.now_s += 0.5  # half of the running batch is done
        assert queue.expected_wait_s() == pytest.approx(2.5)
        with pytest.raises(OverloadedError) as refused:
            await queue.submit(pairs(10), model.now_s + 2.55)  # begins in time, but would end too late
        assert refused.value.retry_after_s == pytest.approx(2.5)
        model.may_go.set()
        await asyncio.gather(*running)

    run(test)


def test_no_request_waits_longer_than_allowed():
    async def test(model, queue):
        model.may_go.set()
        await queue.submit(pairs(100), LATER)
        model.may_go.clear()
        taken = [asyncio.create_task(queue.submit(pairs(100), LATER)) for _ in range(2)]
        await settle()
        with pytest.raises(OverloadedError):
            await queue.submit(pairs(1), LATER)
        model.may_go.set()
        assert len(await asyncio.gather(*taken)) == 2
        assert await queue.submit(pairs(1), LATER) == "answer to 1"

    run(test, max_wait_s=1.5)


def test_a_batch_takes_in_no_more_than_its_most_urgent_request_has_time_for():
    async def test(model, queue):
        model.may_go.set()
        await queue.submit(pairs(100), LATER)
        model.may_go.clear()
        running = asyncio.create_task(queue.submit(pairs(10), LATER))
        await settle()
        urgent = asyncio.create_task(queue.submit(pairs(20), model.now_s + 0.55))
        patient = [asyncio.create_task(queue.submit(pairs(10), LATER)) for _ in range(3)]
        await settle()
        model.may_go.set()
        await asyncio.gather(running, urgent, *patient)
        assert model.batches[1:] == [[10], [20, 10, 10], [10]]  # the last one would make it 0.1 s + 0.5 s

    run(test)


def test_a_model_that_strays_from_its_rate_is_given_more_room():
    async def test(model, queue):
        model.may_go.set()
        for rate in (100.0, 50.0, 200.0, 50.0, 200.0):
            model.tokens_a_second = rate
            await queue.submit(pairs(100), LATER)
        model.may_go.clear()
        running = asyncio.create_task(queue.submit(pairs(100), LATER))
        await settle()
        expected_s = queue.expected_wait_s() + 10 / queue.tokens_a_second
        with pytest.raises(OverloadedError):
            await queue.submit(pairs(10), model.now_s + 1.2 * expected_s)
        taken = asyncio.create_task(queue.submit(pairs(10), model.now_s + 3 * expected_s))
        await settle()
        model.may_go.set()
        await asyncio.gather(running, taken)

    run(test)


def test_a_slow_start_does_not_refuse_for_ever():
    async def test(model, queue):
        model.may_go.set()
        model.tokens_a_second = 0.01  # the first call of a model compiles and packs
        await queue.submit(pairs(10), LATER)
        model.tokens_a_second = 100.0
        for _ in range(30):
            await queue.submit(pairs(10), model.now_s + 1.0)
        assert queue.tokens_a_second == pytest.approx(100.0, rel=0.01)

    run(test)


def test_a_client_that_has_gone_costs_nothing_and_an_error_is_that_of_its_batch():
    async def test(model, queue):
        first = asyncio.create_task(queue.submit(pairs(100), LATER))
        await settle()
        gone = asyncio.create_task(queue.submit(pairs(40), LATER))
        failing = asyncio.create_task(queue.submit(pairs(30), LATER))
        await settle()
        gone.cancel()
        model.fails_at = 30
        model.may_go.set()
        await first
        with pytest.raises(RuntimeError, match="no memory"):
            await failing
        assert model.batches == [[100], [30]]
        assert await queue.submit(pairs(7), LATER) == "answer to 7"

    run(test)
