"""What runs beside the admin API for as long as it does, and starts again when a bug ends it.

A part that stopped without a word would leave presets unwatched while all else looks well. What
can go wrong outside is handled by the parts themselves; here is only the last resort.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock

PAUSE = timedelta(seconds=1)

Part = Callable[[], Awaitable[None]]

_log = log.get("orchestrator")


@asynccontextmanager
async def beside(*parts: Part, clock: Clock) -> AsyncIterator[None]:
    """Run these parts beside the block; they are cancelled at its end."""
    tasks = [asyncio.create_task(_again_and_again(part, clock)) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _again_and_again(part: Part, clock: Clock) -> None:
    while True:
        try:
            return await part()
        except Exception:  # noqa: BLE001  the last resort against a part that is silently gone
            _log.exception("a part crashed by a bug and starts again")
            await clock.sleep(PAUSE)
