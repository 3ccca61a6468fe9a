"""Whether all is as declared after the faults, and what the journal says of the time between.

Called by bench/replicas.py at the end of a run.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from bench.replicas_fleet import Fleet
from bench.replicas_watch import Cloud, Store, members_of
from orchestrator.authority import lock_name
from orchestrator.homes import home
from orchestrator.model import PresetName
from orchestrator.replicas import is_replica
from vmshepherd.iaas.v1.vm_pb2 import Vm
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase, PresetView
from vmshepherd.runtime.v1.event_pb2 import Event
from vmshepherd_kit import dial
from vmshepherd_kit.errors import ShepherdError

# What is written down before a VM is touched.
_BEFORE: Final = {"VM_CREATING", "VM_TERMINATING"}
_WISHED: Final = "OPERATOR"
_LOOK: Final = 0.5
_DEADLINE: Final = timedelta(seconds=10)
_SOME: Final = 10


async def settled(
    fleet: Fleet, store: Store, cloud: Cloud, *, counts: Mapping[str, int], seconds: float
) -> list[str]:
    """Wait until everything is as declared; what is not, when that takes too long."""
    end = time.monotonic() + seconds
    while True:
        found = await _unsettled(fleet, store, cloud, counts)
        if not found or time.monotonic() > end:
            return found
        await asyncio.sleep(_LOOK)


async def _unsettled(
    fleet: Fleet, store: Store, cloud: Cloud, counts: Mapping[str, int]
) -> list[str]:
    try:
        vms, views = await cloud.listed(), await _views(fleet)
        return [
            *_not_as_declared(vms, counts),
            *_not_steady(views, counts),
            *await _not_shared(store, counts),
        ][:_SOME]
    except ShepherdError as e:
        return [f"cannot be asked: {e.message}"]


async def _views(fleet: Fleet) -> Sequence[PresetView]:
    """As one of the replicas shows them."""
    stub = OrchestratorServiceStub(fleet["orchestrator-0"].channel)
    request = api.ListPresetsRequest(page_size=1000)
    return (await dial.ask(stub.ListPresets, request, deadline=_DEADLINE)).presets


def _not_as_declared(vms: Iterable[Vm], counts: Mapping[str, int]) -> list[str]:
    found = Counter(vm.marker.preset for vm in vms)
    return [
        f"{preset or 'no preset'}: {found[preset]} VMs in the cloud, {counts.get(preset, 0)} wanted"
        for preset in sorted(found.keys() | counts.keys())
        if found[preset] != counts.get(preset, 0)
    ]


def _not_steady(views: Sequence[PresetView], counts: Mapping[str, int]) -> list[str]:
    names = {view.name for view in views}
    return [f"{name}: not listed" for name in sorted(counts.keys() - names)] + [
        f"{view.name}: {PresetPhase.Name(view.phase)}, {dict(view.vms_by_status)}: "
        f"{'; '.join(each.message for each in view.conditions)}"
        for view in views
        if view.phase != PresetPhase.PRESET_PHASE_STEADY
        or dict(view.vms_by_status) != {"RUNNING": counts.get(view.name, 0)}
    ]


async def _not_shared(store: Store, counts: Mapping[str, int]) -> list[str]:
    """Presets that are not held by the one live replica that all of them fall to."""
    locks, sessions = await asyncio.gather(store.locks(), store.sessions())
    owners = {lock.name: lock.owner for lock in locks}
    live = [each.owner for each in sessions if is_replica(each)]
    members = members_of(sessions)
    left = [name for name, owner in owners.items() if owner and name.startswith("operator/")]
    wrong = [f"{name}: still held, and nobody writes" for name in left]
    wrong += [f"{owner} has two sessions" for owner, number in Counter(live).items() if number > 1]
    for name in map(PresetName, sorted(counts)):
        owner, due = owners.get(lock_name(name), ""), home(name, members)
        if owner != due or owner not in live:
            wrong.append(f"{name}: held by {owner or 'nobody'}, and falls to {due}")
    return wrong


def of_journal(events: Iterable[Event], *, wanted: set[str]) -> list[str]:
    """What was about to be done and should not have been, and by whom under whose token.

    A token belongs to one replica; whatever is done under an older one than was used before would
    be two holders at once.
    """
    found, newest = list[str](), defaultdict[str, int](int)
    actors = dict[tuple[str, int], str]()
    for event in (each for each in events if each.kind in _BEFORE):
        preset, token = event.preset, event.fencing_token
        actor = actors.setdefault((preset, token), event.actor)
        if actor != event.actor:
            found.append(f"{preset}: token {token} of {actor} is used by {event.actor}")
        if token < newest[preset]:
            found.append(f"{preset}: {event.kind} under {token}, after {newest[preset]}")
        newest[preset] = max(newest[preset], token)
        if event.kind == "VM_TERMINATING" and (
            event.reason != _WISHED or event.vm_id not in wanted
        ):
            found.append(f"{preset}: {event.vm_id} goes because {event.reason}: {event.message}")
    return found
