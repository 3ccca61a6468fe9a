"""One thread that owns the database, and transactions that are shared.

A commit waits for the disk, which takes milliseconds: whatever is asked meanwhile goes into the
next transaction together, each job within a savepoint of its own.  A group that fails is run
again one by one, so that nobody fails for a neighbour.  A job that has begun ends by itself,
whoever waits for it is gone or not.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from vmshepherd_kit.errors import ShepherdError

from . import failures, file

T = TypeVar("T")

# More at once would make the first of them wait for the last.
_GROUP: Final = 256


def _nothing(_answer: object) -> None:
    """What follows an answer, unless somebody says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    is_write: bool
    answer: asyncio.Future[Any]
    then: Callable[[Any], None]


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[Writer]:
    """The writer of the database at this path, within the block."""
    with ThreadPoolExecutor(1, thread_name_prefix="runtime-sqlite") as thread:
        writer = Writer(path, thread)
        await writer.open()
        try:
            yield writer
        finally:
            await writer.close()


class Writer:
    """Runs jobs against the database, one after the other."""

    def __init__(self, path: Path, thread: Executor) -> None:
        self._path = path
        self._thread = thread
        self._waiting: list[_Job] = []
        self._pump: asyncio.Task[None] | None = None
        self._db: sqlite3.Connection

    async def open(self) -> None:
        """Open the database; call it once, before anything else."""
        opening = self._in_thread(file.opened, self._path)
        await asyncio.wait([opening])
        if error := opening.exception():
            raise failures.understood(error, self._path)
        self._db = opening.result()

    async def close(self) -> None:
        """Finish what was begun, and close the database."""
        if self._pump:
            await self._pump
        await self._in_thread(self._db.close)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What the job answers, which must not change anything."""
        return await self._queued(work, is_write=False, then=_nothing)

    async def write(
        self, work: Callable[[sqlite3.Connection], T], *, then: Callable[[T], None] = _nothing
    ) -> T:
        """What the job answers, once it is on the disk.

        `then` is called with it on the event loop, even if the caller has been cancelled.
        """
        return await self._queued(work, is_write=True, then=then)

    async def _queued(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        is_write: bool,
        then: Callable[[T], None],
    ) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(work=work, is_write=is_write, answer=answer, then=then))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._empty())
        return await answer

    async def _empty(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            await self._settle(group)

    async def _settle(self, group: Sequence[_Job]) -> None:
        running = self._in_thread(self._transaction, group)
        await asyncio.wait([running])
        error = running.exception()
        if error is None:
            for job, outcome in zip(group, running.result(), strict=True):
                _deliver(job, outcome)
        elif len(group) == 1:
            _deliver(group[0], failures.understood(error, self._path))
        else:
            for job in group:
                await self._settle([job])

    def _transaction(self, group: Sequence[_Job]) -> list[Any]:
        is_write = any(job.is_write for job in group)
        self._db.execute("BEGIN IMMEDIATE" if is_write else "BEGIN")
        try:
            outcomes = [self._within_savepoint(job) for job in group]
            self._db.execute("COMMIT")
        finally:
            # SQLite itself has rolled back after some errors, and not after others.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        return outcomes

    def _within_savepoint(self, job: _Job) -> object:
        self._db.execute("SAVEPOINT job")
        try:
            outcome = job.work(self._db)
        except ShepherdError as refused:
            self._db.execute("ROLLBACK TO job")
            outcome = refused
        self._db.execute("RELEASE job")
        return outcome

    def _in_thread(self, work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *args)


def _deliver(job: _Job, outcome: object) -> None:
    if isinstance(outcome, BaseException):
        if not job.answer.cancelled():
            job.answer.set_exception(outcome)
        return
    job.then(outcome)
    if not job.answer.cancelled():
        job.answer.set_result(outcome)
