"""Ctrl-C ends what a command waits for, at once: also where the signal comes just before the loop
begins to wait, or meets another thread.  asyncio's own handler sleeps on then, until something else
happens.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """What it returns.  KeyboardInterrupt when somebody interrupts it, once it has tidied up; a
    second interrupt does not wait for that.
    """

    async def interruptible() -> T:
        loop, working = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def interrupt() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            working.cancel()

        loop.add_signal_handler(signal.SIGINT, interrupt)
        return await working

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
