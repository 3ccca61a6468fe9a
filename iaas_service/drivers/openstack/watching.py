"""Telling of changes: asks Nova for what changed since it was last asked, while anybody listens.

`cloud` starts one for each place.  Nothing is decided by what is found here: it wakes people up.
Meanwhile the names that creates will need are kept ready.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import ShepherdError

from ...domain import VmId
from . import servers, states
from .api import Api
from .inventory import Inventory
from .listing import Reader
from .memory import Memory

# Changes are stamped by several hosts of the cloud, to the second, and seen when they are
# committed: what was told already is asked for again.
_OVERLAP: Final = timedelta(seconds=5)
_LONGEST: Final = timedelta(seconds=15)

_log = log.get("iaas.openstack")


class Watcher:
    """Watches one place."""

    def __init__(
        self,
        api: Api,
        reader: Reader,
        memory: Memory,
        *,
        inventory: Inventory,
        clock: Clock,
        interval: timedelta,
    ) -> None:
        self._api = api
        self._reader = reader
        self._memory = memory
        self._inventory = inventory
        self._clock = clock
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Tell of what changes from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(self._clock.wall()))

    def end(self) -> None:
        """Tell of nothing more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self, since: datetime) -> None:
        wait = self._interval
        while True:
            now = self._clock.wall()
            self._inventory.freshen()
            try:
                await self._tell(since)
            except ShepherdError as e:
                wait = min(2 * wait, _LONGEST)
                _log.debug("changes not read", cloud=str(self._api), reason=e.reason)
            else:
                since, wait = now, self._interval
            await self._clock.sleep(wait)

    async def _tell(self, since: datetime) -> None:
        # Known before the first answer of a service is there: the reader asks for its version.
        await self._reader.version()
        moment = since + self._api.ahead - _OVERLAP
        for server in await self._reader.changed(moment.strftime("%Y-%m-%dT%H:%M:%SZ")):
            if states.is_deleted(server):
                self._memory.bury(VmId(server["id"]))
            elif not states.is_partial(server) and self._reader.is_ours(server["metadata"]):
                self._memory.saw(self._api, servers.vm(server))
