"""Ask side by side what is, and make one observation of it.

A VM that is remembered and not listed is asked for by id: absence from a list proves nothing. What
could not be asked makes the observation incomplete, or a verdict UNKNOWN; it is never guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound, Refused, ShepherdError

from .clients.calls import Listing
from .clients.health import Health, Target
from .clients.iaas import Iaas
from .clients.presets import Declared
from .model import (
    Cloud,
    Fleet,
    Memory,
    Observation,
    PresetName,
    Probe,
    Refusal,
    Removal,
    Spec,
    Verdict,
    Vm,
    VmId,
    VmState,
    Wishes,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known before anybody is asked."""

    name: PresetName
    spec: Spec
    declared: Declared
    fencing_token: int
    memory: Memory
    wishes: Wishes
    fleet: Fleet
    removal: Removal | None = None
    # The provider that the last cycle went by; "" when that is not known.
    former_provider: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """An observation, the provider it was made of, and what could not be asked."""

    observation: Observation
    provider: str
    notes: tuple[Refusal, ...]


async def observe(known: Known, *, iaas: Iaas, health: Health, clock: Clock) -> Seen:
    """Everything that one decision needs.  Raises when the cloud cannot be listed at all."""
    provider, cloud, moves_to = await _where(known, iaas)
    listing = await iaas.list_vms(provider, known.name)
    listing = await _without_gaps(listing, known, provider, iaas)
    probes, notes = await _probe(listing.vms, known, health)
    observation = Observation(
        now=clock.wall(),
        suite_id=iaas.suite_id,
        spec=known.spec,
        fencing_token=known.fencing_token,
        vms=listing.vms,
        complete=listing.complete,
        incomplete_reason=listing.incomplete_reason,
        probes=probes,
        memory=known.memory,
        wishes=known.wishes,
        fleet=known.fleet,
        cloud=cloud,
        removal=known.removal,
        moves_to=moves_to,
    )
    return Seen(observation, provider, notes)


async def _where(known: Known, iaas: Iaas) -> tuple[str, Cloud, str]:
    """Where the VMs are, what that provider promises, and the declared one where it is another.

    A provider that changed is not asked before nothing is left at the former one: to it, all VMs
    would seem to be gone.
    """
    former, is_empty = known.former_provider, not (known.memory.vms or known.memory.intents)
    provider, cloud = await iaas.cloud(known.declared.provider)
    if not former or former == provider or is_empty:
        return provider, cloud, ""
    try:
        _, cloud = await iaas.cloud(former)
    except NotFound as e:
        message = f"its VMs run at provider {former!r}, which is not there any more: {e.message}"
        raise Refused(message, reason="PROVIDER_CHANGED") from e
    return former, cloud, provider


async def _without_gaps(listing: Listing, known: Known, provider: str, iaas: Iaas) -> Listing:
    """The listing, with every VM that it should have and lacks read by id."""
    memory, listed = known.memory, {vm.vm_id for vm in listing.vms}
    confirmed = (intent.vm_id for intent in memory.intents if intent.vm_id)
    missing = sorted({*memory.vms, *confirmed} - listed)
    if not missing:
        return listing
    found = await asyncio.gather(*(_read(iaas, known, provider, vm_id) for vm_id in missing))
    errors = [each for each in found if isinstance(each, ShepherdError)]
    vms = (*listing.vms, *(each for each in found if isinstance(each, Vm)))
    if errors and listing.complete:
        why = f"{len(errors)} known VMs are not listed and cannot be read: {errors[0].message}"
        return Listing(vms, complete=False, incomplete_reason=why)
    return Listing(vms, listing.complete, listing.incomplete_reason)


async def _read(iaas: Iaas, known: Known, provider: str, vm_id: VmId) -> Vm | ShepherdError | None:
    try:
        return await iaas.get_vm(provider, known.name, vm_id)
    except ShepherdError as e:
        return e


async def _probe(
    vms: Iterable[Vm], known: Known, health: Health
) -> tuple[Mapping[VmId, Probe], tuple[Refusal, ...]]:
    targets = [Target(vm.vm_id, vm.addresses) for vm in vms if _is_probed(vm, known)]
    if known.declared.check is None or not targets:
        return {}, ()
    try:
        probes = await health.probe(known.declared.check, targets)
    except ShepherdError as e:
        return {}, (Refusal("CHECK_FAILED", f"the VMs cannot be probed: {e.message}"),)
    return {VmId(vm_id): probe for vm_id, probe in probes.items()}, _unseen(probes, len(targets))


def _is_probed(vm: Vm, known: Known) -> bool:
    """Whether its check means anything: nobody asks how a VM is that is kept because it failed, or
    that is left to itself since its preset was removed.
    """
    memory = known.memory.vms.get(vm.vm_id)
    is_kept = memory is not None and memory.kept_since is not None
    return vm.state is VmState.RUNNING and not is_kept and known.removal is None


def _unseen(probes: Mapping[str, Probe], number: int) -> tuple[Refusal, ...]:
    """What a person should know of VMs about which their check says nothing."""
    known = sum(1 for each in probes.values() if each.verdict is not Verdict.UNKNOWN)
    if known == number:
        return ()
    why = next((p.message for p in probes.values() if p.verdict is Verdict.UNKNOWN), "no result")
    said = f"{number - known} of {number} running VMs cannot be judged, and are left alone: {why}"
    return (Refusal("CHECK_UNKNOWN", said),)
