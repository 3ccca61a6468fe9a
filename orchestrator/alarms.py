"""What wakes presets before their time: changes of VMs, and wishes that other replicas took.

Wake-ups only save time: every cycle observes afresh, and what is lost here is seen at the next
regular look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from datetime import timedelta

from vmshepherd.iaas.v1 import iaas_service_pb2 as iaas_pb
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime_pb
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import ResumeTokenTooOld, ShepherdError, Unavailable, Unsupported

from .clients.iaas import Iaas
from .clients.runtime import Runtime
from .looks import Looks
from .model import PresetName
from .schedule import Schedule

RETRY_AFTER = timedelta(seconds=1)
# A runtime service that hangs says nothing for longer than one of which nothing is to be told.
SILENCE = timedelta(seconds=5)
# How often it is looked whether there are providers that nobody watches yet.
DISCOVER_EVERY = timedelta(seconds=30)
WISHES = (
    "PRESET_PAUSED",
    "PRESET_RESUMED",
    "TERMINATION_WISHED",
    "VM_PROTECTED",
    "VM_UNPROTECTED",
    "COUNT_APPROVED",
    "RECONCILE_ASKED",
)

_log = log.get("alarms")


async def on_vms(iaas: Iaas, schedule: Schedule, *, clock: Clock) -> None:
    """Wake presets whose VMs change, at every provider that tells, now or later."""
    watched = set[str]()
    async with asyncio.TaskGroup() as group:
        while True:
            pause = DISCOVER_EVERY
            try:
                await iaas.discover()
            except ShepherdError as e:
                _log.debug("an iaas service cannot be asked", error=e.message)
                pause = RETRY_AFTER
            for provider in set(iaas.watched()) - watched:
                watched.add(provider)
                group.create_task(_on_provider(provider, iaas, schedule, clock=clock))
            await clock.sleep(pause)


async def on_wishes(runtime: Runtime, schedule: Schedule, looks: Looks, *, clock: Clock) -> None:
    """Wake presets for which somebody asked something, at whatever replica."""
    request = runtime_pb.WatchEventsRequest()
    request.filter.kinds.extend(WISHES)
    while True:
        try:
            async with aclosing(runtime.watch_events(request)) as stream:
                async for chunk in heard(stream):
                    request.after_sequence = chunk.sequence
                    _wake(schedule, {PresetName(event.preset) for event in chunk.events})
                    for event in chunk.events:
                        looks.hear(event)
        except ResumeTokenTooOld:
            request.ClearField("after_sequence")
        except ShepherdError as e:
            _log.debug("events are not being watched", error=e.message)
        await clock.sleep(RETRY_AFTER)


async def heard(
    stream: AsyncIterator[runtime_pb.WatchEventsResponse],
) -> AsyncIterator[runtime_pb.WatchEventsResponse]:
    """The chunks of a watch.  Unavailable when it is silent: one that is quiet says so."""
    while True:
        try:
            async with asyncio.timeout(SILENCE.total_seconds()):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as e:
            raise Unavailable("the watch of the journal is silent") from e
        yield chunk


async def _on_provider(provider: str, iaas: Iaas, schedule: Schedule, *, clock: Clock) -> None:
    while True:
        try:
            async with aclosing(iaas.watch(provider)) as stream:
                async for event in stream:
                    schedule.wake(set(_presets(event)))
        except Unsupported:
            return
        except ShepherdError as e:
            _log.debug("VMs are not being watched", provider=provider, error=e.message)
        await clock.sleep(RETRY_AFTER)
        # Whatever happened meanwhile was not told.
        schedule.wake_all()


def _wake(schedule: Schedule, names: set[PresetName]) -> None:
    if PresetName("") in names:
        schedule.wake_all()
    else:
        schedule.wake(names)


def _presets(event: iaas_pb.WatchVmsResponse) -> Iterable[PresetName]:
    for vm in event.changed.vms:
        yield PresetName(vm.marker.preset)
    for gone in event.gone.vms:
        yield PresetName(gone.preset)
