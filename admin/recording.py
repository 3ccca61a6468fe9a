"""What `vmshepherd policy record` asks, and the timeline that it prints.

The past is read from the journal as a whole, because events from before `--since` tell how it
began; guesses go to standard error, so that the timeline alone is on standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from admin import client
from admin.options import Asking, Exit, fail
from admin.words import clean
from orchestrator.backtest.history import Now, Present, Told, recorded
from orchestrator.backtest.writing import write
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import VmView
from vmshepherd.runtime.v1.event_pb2 import Event, EventFilter
from vmshepherd_kit import dial, settings, stamps
from vmshepherd_kit.clock import SystemClock

# More of a preset's events would not fit into a timeline that anybody replays.
_MOST_EVENTS: Final = 200_000


@dataclass(frozen=True, slots=True)
class _Answer:
    """A preset as it stands, and what the journal tells of it."""

    preset: api.GetPresetResponse
    events: list[Event]


def record(asking: Asking, preset: str, *, since: str) -> None:
    """Print the timeline of a preset; say on standard error what of it is a guess."""
    try:
        length = settings.duration(since)
    except ValueError as e:
        raise fail(f"--since {since!r}: {e}", Exit.USAGE) from e
    answer = client.answer(asking, lambda stub: _ask(stub, preset))
    now = SystemClock().wall()
    view = answer.preset.preset
    found = recorded(
        [told for event in answer.events if (told := _told(event))],
        Now(
            preset=view.name,
            count=view.count,
            spec_hash=view.spec_hash,
            time=now,
            vms=tuple(_present(answer.preset.vms)),
        ),
        since=now - length,
    )
    for warning in found.warnings:
        print(f"note: {clean(warning)}", file=sys.stderr)
    print(write(found.timeline), end="")


async def _ask(stub: OrchestratorServiceStub, preset: str) -> _Answer:
    shown = await dial.ask(stub.GetPreset, api.GetPresetRequest(preset=preset))
    chosen = EventFilter(preset=preset)
    listed = await client.list_events(stub, chosen, limit=_MOST_EVENTS)
    return _Answer(shown, list(listed.events))


def _told(event: Event) -> Told | None:
    """An event without what a timeline has no use for; none that tells no time."""
    time = stamps.from_timestamp(event.time)
    if time is None:
        return None
    return Told(
        time=time,
        kind=event.kind,
        reason=event.reason,
        vm_id=event.vm_id,
        message=event.message,
        actor=event.actor,
        evidence=dict(event.evidence),
    )


def _present(shown: Iterable[VmView]) -> Iterable[Present]:
    for vm in shown:
        yield Present(
            vm_id=vm.vm_id,
            created=stamps.from_timestamp(vm.create_time),
            image=vm.image,
            flavor=vm.flavor,
            zone=vm.zone,
        )
