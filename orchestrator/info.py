"""The state of the suite for `GetInfo`: replicas, owners, the services behind, the configuration.

What cannot be reached is reported as such: asking never fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import TypeVar

from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as pb
from vmshepherd.orchestrator.v1 import view_pb2
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd.runtime.v1 import runtime_service_pb2
from vmshepherd_kit.errors import ShepherdError, Unavailable
from vmshepherd_kit.stamps import to_timestamp

from .authority import lock_name
from .board import Board, Phase
from .clients.health import Health
from .clients.iaas import Iaas
from .clients.presets import Presets
from .clients.runtime import Runtime
from .config import Services
from .model import PresetName
from .overview import Overviews
from .removals import Removals
from .replicas import is_replica, share_of

VERSION = version("vmshepherd")
_PREFIX = lock_name(PresetName(""))

# Whoever asks waits for ten seconds or less: a service that hangs is told of long before.
PATIENCE = timedelta(seconds=2)

Answer = TypeVar("Answer")
Asking = Callable[[], Awaitable[Answer]]


@dataclass(slots=True, kw_only=True)
class Informant:
    """Gathers what `GetInfo` tells."""

    owner: str
    suite_id: str
    started: datetime
    services: Services
    presets: Presets
    removals: Removals
    board: Board
    overviews: Overviews
    runtime: Runtime
    iaas: Iaas
    health: Health
    config_time: datetime
    config_error: str = ""

    async def info(self) -> pb.GetInfoResponse:
        """Everything at once."""
        (replicas, replicas_error), backends, phases = await asyncio.gather(
            self._replicas(), self._backends(), self._phases()
        )
        return pb.GetInfoResponse(
            version=VERSION,
            owner=self.owner,
            suite_id=self.suite_id,
            replicas=replicas,
            replicas_error=replicas_error,
            backends=backends,
            start_time=to_timestamp(self.started),
            presets_by_phase=phases,
            config_time=to_timestamp(self.config_time),
            config_error=self.config_error,
        )

    async def source_errors(self) -> list[view_pb2.Condition]:
        """Errors of sources, and of files that declare no known preset."""
        try:
            sources = await _soon(self.presets.sources)
        except ShepherdError as e:
            return [view_pb2.Condition(code="PRESETS_UNREACHABLE", message=e.message)]
        known = {f.file for name in self.presets.names() for f in self._findings(name)}
        errors = [
            view_pb2.Condition(code="SOURCE_UNREADABLE", message=f"{source.name}: {source.error}")
            for source in sources
            if source.error
        ]
        return errors + [
            view_pb2.Condition(
                code="FILE_REFUSED",
                message=f"{finding.file}:{finding.line}: {finding.key}: {finding.message}",
            )
            for source in sources
            for finding in source.findings
            if finding.file not in known
        ]

    def _findings(self, name: PresetName) -> list[preset_pb2.Finding]:
        declared = self.presets.get(name)
        return list(declared.message.findings) if declared else []

    async def _replicas(self) -> tuple[list[pb.Replica], str]:
        """The replicas, and why they are not known."""
        try:
            sessions, locks = await asyncio.gather(
                _soon(self.runtime.sessions), _soon(self.runtime.locks)
            )
        except ShepherdError as e:
            return [], e.message
        return [_replica(session, locks) for session in sessions if is_replica(session)], ""

    async def _backends(self) -> list[pb.Backend]:
        where = self.services
        return list(
            await asyncio.gather(
                _backend("preset", where.preset, self.presets.sources),
                _backend("runtime", where.runtime, self.runtime.sessions),
                _backend("iaas", ",".join(where.iaas), self.iaas.discover),
                _backend("health", where.health, self.health.checks),
            )
        )

    async def _phases(self) -> dict[str, int]:
        """How many presets are in which phase; what others hold is ELSEWHERE if nobody can tell."""
        try:
            overviews = await _soon(self.overviews.all)
        except ShepherdError:
            names = {*self.presets.names(), *self.removals.names()}
            shown = (self.board.get(name) for name in names)
            return dict(Counter((each.phase if each else Phase.WAITING).name for each in shown))
        phases = (view_pb2.PresetPhase.Name(each.preset.phase) for each in overviews)
        return dict(Counter(phase.removeprefix("PRESET_PHASE_") for phase in phases))


def _replica(
    session: runtime_service_pb2.Session, locks: list[runtime_service_pb2.Lock]
) -> pb.Replica:
    return pb.Replica(
        owner=session.owner,
        labels=session.labels,
        age=session.age,
        share=share_of(session),
        presets=[
            pb.HeldPreset(
                preset=lock.name.removeprefix(_PREFIX),
                fencing_token=lock.fencing_token,
                age=lock.age,
            )
            for lock in locks
            if lock.owner == session.owner and lock.name.startswith(_PREFIX)
        ],
    )


async def _soon(asking: Asking[Answer]) -> Answer:
    """The answer; Unavailable when it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            return await asking()
    except TimeoutError as e:
        raise Unavailable(f"no answer within {PATIENCE.total_seconds():g} s") from e


async def _backend(name: str, address: str, asking: Asking[object]) -> pb.Backend:
    try:
        await _soon(asking)
    except ShepherdError as e:
        return pb.Backend(name=name, address=address, reachable=False, error=e.message)
    return pb.Backend(name=name, address=address, reachable=True)
