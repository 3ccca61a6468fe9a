"""What becomes of a task that everybody who waited for it may have left behind."""

from __future__ import annotations

import asyncio
from typing import Any


def hear(task: asyncio.Task[Any]) -> None:
    """Take the error of a task that is done: asyncio would log one that nobody has taken, as an
    alarm and with all its words.

    Add it as a done callback; whoever waits all the same is told the error, too.
    """
    if not task.cancelled():
        task.exception()
