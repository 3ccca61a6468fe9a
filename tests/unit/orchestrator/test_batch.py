from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import timedelta

import pytest

from orchestrator.clients import batch as module
from orchestrator.clients.batch import Batch
from vmshepherd_kit.errors import Internal, NotFound, ShepherdError, Unavailable
from vmshepherd_kit.testing import FakeClock

MOMENT = timedelta(milliseconds=20)


class Server:
    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.error: Exception | None = None
        self.is_forgetful = False
        self.answering = asyncio.Event()
        self.answering.set()

    async def send(self, items: Sequence[int]) -> Sequence[str | ShepherdError]:
        self.asked.append(list(items))
        await self.answering.wait()
        if self.error:
            raise self.error
        answers: list[str | ShepherdError] = [
            NotFound("none") if item < 0 else f"answer {item}" for item in items
        ]
        return answers[:1] if self.is_forgetful else answers


def asking(batch: Batch[int, str], *items: int) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(batch.ask(item)) for item in items]


async def test_what_is_asked_within_a_moment_leaves_as_one_call() -> None:
    clock, server = FakeClock(), Server()
    batch = Batch(server.send, clock=clock)
    tasks = asking(batch, 1, 2, -3)
    await clock.advance(MOMENT)
    assert server.asked == [[1, 2, -3]]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[:2] == ["answer 1", "answer 2"]
    # Each has its own error, and nobody another's.
    assert isinstance(results[2], NotFound)


async def test_an_answer_is_never_older_than_its_question() -> None:
    clock, server = FakeClock(), Server()
    batch = Batch(server.send, clock=clock)
    server.answering.clear()
    first = asking(batch, 1)
    await clock.advance(MOMENT)
    second = asking(batch, 1)
    await clock.advance(MOMENT)
    assert server.asked == [[1], [1]]
    server.answering.set()
    assert await asyncio.gather(*first, *second) == ["answer 1"] * 2


async def test_a_call_that_fails_fails_for_all_of_it() -> None:
    clock, server = FakeClock(), Server()
    server.error = Unavailable("away")
    tasks = asking(Batch(server.send, clock=clock), 1, 2)
    await clock.advance(MOMENT)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [Unavailable, Unavailable]


async def test_an_answer_that_is_too_short_leaves_nobody_waiting() -> None:
    clock, server = FakeClock(), Server()
    server.is_forgetful = True
    tasks = asking(Batch(server.send, clock=clock), 1, 2, 3)
    await clock.advance(MOMENT)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [Internal] * 3


async def test_a_bug_leaves_nobody_waiting_and_cancels_nobody() -> None:
    clock, server = FakeClock(), Server()
    server.error = KeyError("a bug")
    batch = Batch(server.send, clock=clock)
    tasks = asking(batch, 1, 2)
    await asyncio.sleep(0)
    [gathering] = batch._tasks
    await clock.advance(MOMENT)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [Internal, Internal]
    assert isinstance(gathering.exception(), KeyError)


async def test_what_was_cancelled_is_not_asked_any_more() -> None:
    clock, server = FakeClock(), Server()
    batch = Batch(server.send, clock=clock)
    tasks = asking(batch, 1, 2)
    await asyncio.sleep(0)
    tasks[0].cancel()
    await clock.advance(MOMENT)
    assert server.asked == [[2]]
    assert await tasks[1] == "answer 2"


async def test_a_call_carries_no_more_than_a_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAVIEST", 10)
    clock, server = FakeClock(), Server()
    batch = Batch(server.send, clock=clock, limit=3, weigh=lambda item: item)
    tasks = asking(batch, 4, 4, 4, 99, 1, 1, 1, 1)
    await clock.advance(MOMENT)
    assert server.asked == [[4, 4], [4], [99], [1, 1, 1], [1]]
    assert len(await asyncio.gather(*tasks)) == 8


async def test_gathering_ends_though_somebody_always_comes() -> None:
    clock, server = FakeClock(), Server()
    batch = Batch(server.send, clock=clock)
    tasks = list[asyncio.Task[str]]()
    for number in range(100):
        tasks += asking(batch, number)
        await clock.advance(timedelta(milliseconds=4))
    assert server.asked
    assert clock.elapsed() < timedelta(seconds=0.5)
    await clock.advance(timedelta(seconds=1))
    assert len(await asyncio.gather(*tasks)) == 100
    assert not batch._tasks


async def test_a_call_has_a_context_of_its_own() -> None:
    deadline = ContextVar("deadline", default="none")
    seen = list[str]()

    async def send(items: Sequence[int]) -> Sequence[str]:
        seen.append(deadline.get())
        return ["" for _ in items]

    clock = FakeClock()
    batch = Batch(send, clock=clock)
    deadline.set("of whoever came first")
    task = asyncio.create_task(batch.ask(1))
    await clock.advance(MOMENT)
    await task
    assert seen == ["none"]
