"""Changes of VMs on their way from a driver to those who watch.

A driver publishes, from its event loop; each subscriber keeps only the latest change of each VM, so
that a slow reader costs no more memory than there are VMs.  Nothing here knows a cloud or gRPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .domain import Change, VmId


class Subscription:
    """What one watcher has not taken yet."""

    def __init__(self) -> None:
        self._latest: dict[VmId, Change] = {}
        self._something = asyncio.Event()

    async def next(self) -> Sequence[Change]:
        """Wait for changes and take them; cancelled, nothing is lost."""
        await self._something.wait()
        taken = list(self._latest.values())
        self._latest.clear()
        self._something.clear()
        return taken

    def put(self, change: Change) -> None:
        """Keep a change in place of the former one of the same VM."""
        self._latest.pop(change.vm.vm_id, None)
        self._latest[change.vm.vm_id] = change
        self._something.set()


class Feed:
    """Where a driver says what changed."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._subscriptions)

    def publish(self, change: Change) -> None:
        """Tell all who listen."""
        for subscription in self._subscriptions:
            subscription.put(change)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """All changes from now to the end of the block."""
        subscription = Subscription()
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
