"""Tellings become events in the runtime store, many presets a call.

What must be known before an act is written with `record`, which fails when it cannot be written;
what only tells of the past is written with `tell`, which never stops a cycle.
"""

from __future__ import annotations

from collections.abc import Iterable

from vmshepherd.runtime.v1 import event_pb2
from vmshepherd_kit import log
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.errors import ShepherdError
from vmshepherd_kit.stamps import to_timestamp

from .clients.runtime import Runtime
from .model import PresetName
from .narrate import Telling, Weight

_WEIGHTS = {
    Weight.INFO: event_pb2.EVENT_SEVERITY_INFO,
    Weight.WARNING: event_pb2.EVENT_SEVERITY_WARNING,
    Weight.ERROR: event_pb2.EVENT_SEVERITY_ERROR,
}

# An event takes 16 KiB in the store, and one that is larger is refused with all that come with it.
EVENT_BYTES = 16 * 1024
MESSAGE_BYTES = 4096
FACT_BYTES = 1024
# The one fact that is long gets what the others leave, up to this; its end matters most.
LONG_FACT = "console"
LONG_FACT_BYTES = 8192
# What its name and the lengths about it take.
_FRAME_BYTES = 32

_log = log.get("journal")


class Journal:
    """Writes events in the name of one actor."""

    def __init__(self, runtime: Runtime, *, actor: str, clock: Clock, chance: Chance) -> None:
        self._runtime = runtime
        self._actor = actor
        self._clock = clock
        self._chance = chance

    async def record(
        self,
        preset: PresetName,
        tellings: Iterable[Telling],
        *,
        fencing_token: int | None = None,
        actor: str = "",
    ) -> None:
        """Write events now.  Raises when they are not stored."""
        await self._runtime.append(
            [self._event(preset, each, fencing_token, actor) for each in tellings]
        )

    async def tell(
        self, preset: PresetName, tellings: Iterable[Telling], *, fencing_token: int | None = None
    ) -> None:
        """Write events if the store takes them; say in the log when it does not."""
        try:
            await self.record(preset, tellings, fencing_token=fencing_token)
        except ShepherdError as e:
            _log.warning("events were not stored", preset=preset, error=e.message)

    def _event(
        self, preset: PresetName, telling: Telling, fencing_token: int | None, actor: str
    ) -> event_pb2.Event:
        event = event_pb2.Event(
            event_id=self._chance.uuid(),
            time=to_timestamp(self._clock.wall()),
            preset=preset,
            vm_id=telling.vm_id,
            kind=telling.kind,
            reason=telling.reason,
            message=_cut(telling.message, MESSAGE_BYTES),
            actor=_cut(actor or self._actor, FACT_BYTES),
            fencing_token=fencing_token,
            evidence={
                key: _cut(value, FACT_BYTES)
                for key, value in telling.evidence.items()
                if value and key != LONG_FACT
            },
            severity=_WEIGHTS[telling.weight],
        )
        if long := telling.evidence.get(LONG_FACT):
            room = EVENT_BYTES - event.ByteSize() - _FRAME_BYTES
            event.evidence[LONG_FACT] = _end_of(long, min(LONG_FACT_BYTES, room))
        return event


def _cut(text: str, most: int) -> str:
    raw = text.encode()
    return text if len(raw) <= most else raw[:most].decode(errors="ignore") + "…"


def _end_of(text: str, most: int) -> str:
    raw = text.encode()
    if len(raw) <= most:
        return text
    mark = "…"
    return mark + raw[len(raw) - max(0, most - len(mark.encode())) :].decode(errors="ignore")
