"""grpc.health.v1 of our own: Check, List and Watch, for every server of the suite.

`serve` registers it and sets what it says.  The stock servicer writes to its watchers while it
holds the lock that a change needs, so that one watcher that stops reading stops them all,
draining included.  Here every watcher has an event of its own and reads the latest status itself:
nothing waits for a watcher.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from grpc_health.v1.health_pb2 import (  # type: ignore[attr-defined]  # the types lack List
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from grpc_health.v1.health_pb2_grpc import HealthServicer

from vmshepherd_kit.errors import NotFound, Throttled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from vmshepherd_kit.handlers import Context

SERVING: Final[int] = HealthCheckResponse.SERVING
NOT_SERVING: Final[int] = HealthCheckResponse.NOT_SERVING

LIVENESS: Final = "liveness"
READINESS: Final = "readiness"


class Health(HealthServicer):
    """The statuses of one server, by service name; "" is the server as a whole.

    `liveness` says that the process runs and answers, from the first moment to the last; all
    other names follow readiness, and are NOT_SERVING until `serve` says otherwise.
    """

    def __init__(self, services: Iterable[str], *, max_unknown_watchers: int = 64) -> None:
        self._statuses: dict[str, int] = dict.fromkeys(["", READINESS, *services], NOT_SERVING)
        self._statuses[LIVENESS] = SERVING
        self._watchers: set[asyncio.Event] = set()
        self._heard = asyncio.Event()
        self._heard.set()
        self._unknown_watchers = 0
        self._max_unknown_watchers = max_unknown_watchers

    def ready(self, ready: bool, *services: str) -> None:  # noqa: FBT001  reads as it is meant
        """Say of these services, or of all, that they serve or that they do not."""
        for name in services or [name for name in self._statuses if name != LIVENESS]:
            self._statuses[name] = SERVING if ready else NOT_SERVING
        for changed in self._watchers:
            changed.set()
        self._compare()

    async def heard(self) -> None:
        """Wait until every watcher has taken the newest statuses up."""
        await self._heard.wait()

    async def Check(self, request: HealthCheckRequest, _context: Context) -> HealthCheckResponse:
        """The status of one service; NOT_FOUND for a name that this server does not know."""
        status = self._statuses.get(request.service)
        if status is None:
            raise NotFound("no such service is served here", service=request.service[:200])
        return HealthCheckResponse(status=status)

    async def List(self, _request: HealthListRequest, _context: Context) -> HealthListResponse:
        """The statuses of all services."""
        statuses = {name: HealthCheckResponse(status=s) for name, s in self._statuses.items()}
        return HealthListResponse(statuses=statuses)

    async def Watch(
        self, request: HealthCheckRequest, _context: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        """The status now, then each change of it; a slow reader gets the latest, not every one."""
        unknown = request.service not in self._statuses
        if unknown and self._unknown_watchers >= self._max_unknown_watchers:
            raise Throttled("too many watchers of services that are not served here")
        changed = asyncio.Event()
        self._watchers.add(changed)
        self._unknown_watchers += unknown
        try:
            async for status in self._changes(request.service, changed):
                yield HealthCheckResponse(status=status)
        finally:
            self._watchers.discard(changed)
            self._compare()
            self._unknown_watchers -= unknown

    async def _changes(self, name: str, changed: asyncio.Event) -> AsyncIterator[int]:
        told = None
        while True:
            changed.clear()
            self._compare()
            status = self._statuses.get(name, HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                told = status
                yield status
            else:
                await changed.wait()

    def _compare(self) -> None:
        if any(changed.is_set() for changed in self._watchers):
            self._heard.clear()
        else:
            self._heard.set()
