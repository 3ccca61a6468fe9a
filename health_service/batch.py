"""The results of one run of a check, gathered as they come in and handed out in chunks.

`prober` begins it and ends it. However a check behaves, every aim gets one result: what is
reported twice counts once, what is never reported is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from health_service.domain import Address, Aim, Reason, Result, TargetId, Verdict
from health_service.port import Probe
from vmshepherd_kit import log

_CHUNK: Final = 500
# Results that come in so close to each other travel together.
_GATHERING: Final = timedelta(milliseconds=10)

_log = log.get("batch")


class Batch:
    """The results of one run of a check, as they come in: one for every aim, and only one."""

    def __init__(self, probe: Probe, aims: Sequence[Aim], settled: Sequence[Result]) -> None:
        self._probe = probe
        self._aims = aims
        self._open: set[TargetId] = {aim.target_id for aim in aims}
        self._ready: list[Result] = list(settled)
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._addresses = {aim.target_id: aim.address for aim in aims}
        self.silent = 0
        self.silent_addresses: set[Address] = set()
        self.heard = False

    def begin(self) -> None:
        """Let the check run."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._finish())

    async def end(self) -> None:
        """Stop the check, if it still runs."""
        if self._task and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def is_over(self) -> bool:
        """Whether everything has been handed out."""
        return not self._ready and not self._open

    async def chunk(self) -> list[Result]:
        """The next results, at least one; none when there are no more."""
        while self._open and not self._ready:
            self._news.clear()
            await self._news.wait()
        await self._gather()
        chunk, self._ready = self._ready[:_CHUNK], self._ready[_CHUNK:]
        return chunk

    async def _gather(self) -> None:
        if self._task and self._open and len(self._ready) < _CHUNK:
            await asyncio.wait({self._task}, timeout=_GATHERING.total_seconds())

    async def _run(self) -> None:
        await self._probe(self._aims, self._report)

    def _report(self, result: Result) -> None:
        if result.target_id not in self._open:
            return
        self._open.discard(result.target_id)
        self._hear(result)
        self._ready.append(result)
        self._news.set()

    def _hear(self, result: Result) -> None:
        self.heard = self.heard or _is_heard(result)
        if result.silent:
            self.silent += 1
            if address := self._addresses.get(result.target_id):
                self.silent_addresses.add(address)

    def _finish(self) -> None:
        """What the check left out is unknown; what it raised is a bug, told in the log."""
        task = self._task
        if task and not task.cancelled() and (bug := task.exception()):
            _log.error("check failed by a bug", exc_info=bug)
        for target_id in sorted(self._open):
            text = "the check ended without a verdict"
            self._report(Result(target_id, Verdict.UNKNOWN, Reason.BUG, text))
        self._news.set()


def _is_heard(result: Result) -> bool:
    return result.verdict is not Verdict.UNKNOWN and not result.silent
