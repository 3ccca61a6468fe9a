"""What `vmshepherd events` asks and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from admin import client, printing, tables
from admin.options import Asking, Exit, fail
from admin.words import NOTHING, clean
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.runtime.v1.event_pb2 import Event, EventFilter
from vmshepherd_kit import dial, errors, settings, stamps
from vmshepherd_kit.clock import SystemClock

_AGAIN: Final = timedelta(seconds=1)


def list_newest(asking: Asking, chosen: EventFilter, *, limit: int) -> None:
    """The newest events, the last one at the bottom."""
    answer = client.answer(asking, lambda stub: client.list_events(stub, chosen, limit=limit))
    if asking.is_json:
        printing.print_json(answer)
    else:
        printing.print_table(tables.events(answer.events))


def follow(asking: Asking, chosen: EventFilter, *, limit: int) -> None:
    """The newest events, then each as it happens, until somebody ends it."""
    client.answer(asking, lambda stub: _follow(stub, asking, chosen, limit))


def chosen_events(preset: str, vm_id: str, kinds: Sequence[str], since: str | None) -> EventFilter:
    """Which events are meant."""
    chosen = EventFilter(preset=preset, vm_id=vm_id, kinds=[kind.upper() for kind in kinds])
    if since:
        try:
            moment = SystemClock().wall() - settings.duration(since)
        except ValueError as e:
            raise fail(f"--since {since!r}: {e}", Exit.USAGE) from e
        chosen.since_time.CopyFrom(stamps.to_timestamp(moment))
    return chosen


async def _follow(
    stub: OrchestratorServiceStub, asking: Asking, chosen: EventFilter, limit: int
) -> None:
    position = None
    if limit:
        past = (await client.list_events(stub, chosen, limit=limit)).events
        _print(asking, past)
        # From the beginning of the journal rather than from now: nothing may fall in between.
        position = past[-1].sequence if past else 0
    clock = SystemClock()
    while True:
        try:
            request = api.WatchEventsRequest(filter=chosen, after_sequence=position)
            async with aclosing(dial.listen(stub.WatchEvents, request)) as chunks:
                async for chunk in chunks:
                    _print(asking, chunk.events)
                    position = chunk.sequence
        except errors.ResumeTokenTooOld:
            print("some events were missed: the journal was trimmed meanwhile", file=sys.stderr)
            position = None
        except errors.Unavailable:
            print(f"{asking.address} does not answer; trying again", file=sys.stderr)
        await clock.sleep(_AGAIN)


def _print(asking: Asking, events: Sequence[Event]) -> None:
    for event in events:
        if asking.is_json:
            printing.print_json(event, indent=None)
        else:
            cells = [clean(cell) or NOTHING for cell in tables.event_cells(event)]
            printing.print_lines(["  ".join(cells)])
    sys.stdout.flush()
