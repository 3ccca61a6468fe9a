"""Creates on their way or answered a moment ago, so that one that comes twice is made once.

`mutations` keeps one for all providers.  This is no promise of a driver without IDEMPOTENT_CREATE,
only a net beneath a channel that repeats a call whose connection broke.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Final

from vmshepherd_kit.errors import AlreadyExists, NotFound, ShepherdError

from .domain import Order, Vm
from .providers import Provider

# A create that was answered is known by its request for so long: a channel that lost the answer
# repeats it within seconds.
_REMEMBERED: Final = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Create:
    order: Order
    task: asyncio.Task[Vm]
    sent: timedelta


class Creates:
    """Of one process."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Create] = {}

    async def earlier(self, provider: Provider, order: Order, now: timedelta) -> Vm | None:
        """The VM of the same request, as it is now; None when there is none."""
        self._forget(now)
        create = self._known.get((provider.name, order.marker.request_id))
        if create is None:
            return None
        if not create.order.is_same_vm_as(order):
            sentence = "the request id was used for another VM"
            raise AlreadyExists(sentence, reason="REQUEST_ID_REUSED")
        if not create.task.done():
            return await asyncio.shield(create.task)
        if create.task.cancelled() or create.task.exception() is not None:
            return None
        [found] = await provider.cloud.get([create.task.result().vm_id])
        if isinstance(found, NotFound):
            return None
        if isinstance(found, ShepherdError):
            raise found
        return found

    def add(self, provider: Provider, order: Order, task: asyncio.Task[Vm], now: timedelta) -> None:
        """Remember a create that was just sent."""
        key = (provider.name, order.marker.request_id)
        # Behind those that were sent before: the dict stays in the order of time.
        self._known.pop(key, None)
        self._known[key] = _Create(order=order, task=task, sent=now)

    def _forget(self, now: timedelta) -> None:
        # In the order of time: only those that are old enough are looked at.
        old = takewhile(lambda item: item[1].sent + _REMEMBERED <= now, self._known.items())
        for key in [key for key, create in old if create.task.done()]:
            del self._known[key]
