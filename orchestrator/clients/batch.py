"""What many ask for within a moment leaves as one call.

Every preset's cycle reads as if it were alone; a thousand cycles side by side still make one
listing, one probe and one write. Used by every client of this package; knows no contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context
from datetime import timedelta
from typing import Generic, TypeVar

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import Internal, ShepherdError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

Waiting = tuple[Item, asyncio.Future[Answer]]

# Gathering ends after a moment in which nobody came, or when the first has waited for long enough.
MOMENT = timedelta(milliseconds=5)
LONGEST = timedelta(milliseconds=250)
# Bytes of one call: servers take 4 MiB.
HEAVIEST = 2 * 1024 * 1024


class Batch(Generic[Item, Answer]):
    """Gathers items for a moment, sends them together, and gives each its own answer or error.

    An item that comes while a call is under way waits for the next one: an answer is never older
    than the question.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | ShepherdError]]],
        *,
        clock: Clock,
        limit: int = 1000,
        moment: timedelta = MOMENT,
        weigh: Callable[[Item], int] = lambda _: 0,
    ) -> None:
        """One call carries at most `limit` items, and `HEAVIEST` by `weigh` unless one is more."""
        self._send = send
        self._clock = clock
        self._limit = limit
        self._moment = moment
        self._weigh = weigh
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_gathering = False

    async def ask(self, item: Item) -> Answer:
        """The answer to this item."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if not self._is_gathering:
            self._is_gathering = True
            self._start()
        return await future

    def _start(self) -> None:
        # A context of its own: the deadline of whoever came first is nobody else's.
        task = asyncio.get_running_loop().create_task(self._gather(), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _gather(self) -> None:
        began, came = self._clock.elapsed(), -1
        while len(self._waiting) > came and self._clock.elapsed() - began < LONGEST:
            came = len(self._waiting)
            await self._clock.sleep(self._moment)
        self._is_gathering = False
        waiting, self._waiting = self._waiting, []
        await asyncio.gather(*(self._call(chunk) for chunk in self._chunks(waiting)))

    def _chunks(
        self, waiting: Sequence[Waiting[Item, Answer]]
    ) -> Iterator[list[Waiting[Item, Answer]]]:
        chunk, weight = list[Waiting[Item, Answer]](), 0
        for each in waiting:
            more = self._weigh(each[0])
            if chunk and (len(chunk) >= self._limit or weight + more > HEAVIEST):
                yield chunk
                chunk, weight = [], 0
            chunk.append(each)
            weight += more
        if chunk:
            yield chunk

    async def _call(self, chunk: Sequence[Waiting[Item, Answer]]) -> None:
        wanted = [(item, future) for item, future in chunk if not future.done()]
        if not wanted:
            return
        answers: Sequence[Answer | ShepherdError] = ()
        try:
            answers = await self._send([item for item, _ in wanted])
        except ShepherdError as e:
            answers = [e] * len(wanted)
        finally:
            # Whatever happens, a bug or an answer that is too short: nobody waits for ever.
            if len(answers) != len(wanted):
                message = f"{len(wanted)} were asked for, {len(answers)} were answered"
                answers = [Internal(message)] * len(wanted)
            for (_, future), answer in zip(wanted, answers, strict=True):
                _settle(future, answer)


def _settle(future: asyncio.Future[Answer], answer: Answer | ShepherdError) -> None:
    if future.done():
        return
    if isinstance(answer, ShepherdError):
        future.set_exception(answer)
    else:
        future.set_result(answer)
