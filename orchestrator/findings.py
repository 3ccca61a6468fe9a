"""Pure: what is known of a VM, and what speaks against it, as facts of an event.

Called by `narrate` and `act`. Whoever reads the journal later, or replays it against another
policy, has nothing else. Addresses and user data never appear.
"""

from __future__ import annotations

from datetime import datetime

from .model import Placement, Probe, Vm, VmMemory


def facts_of(vm: Vm) -> dict[str, str]:
    """How the cloud reports a VM, as far as it does."""
    facts = {
        "state": vm.state.name,
        "cloud_state": vm.cloud_state,
        "fault": vm.fault,
        "created": _moment(vm.created),
        "spec_hash": vm.spec_hash,
        "request_id": vm.request_id,
    }
    return {**_told(facts), **place_of(Placement(image=vm.image, flavor=vm.flavor, zone=vm.zone))}


def place_of(placement: Placement) -> dict[str, str]:
    """What a VM is made of and where, as far as that is known."""
    return _told({"image": placement.image, "flavor": placement.flavor, "zone": placement.zone})


def against(memory: VmMemory | None, probe: Probe | None) -> dict[str, str]:
    """What its check says of a VM now, and has said before."""
    said = {"last_probe": f"{probe.verdict.name}: {probe.message}" if probe else ""}
    if memory is not None and memory.failures:
        said["failures"] = str(memory.failures)
        said["failing_since"] = _moment(memory.failing_since)
    return _told(said)


def _moment(time: datetime | None) -> str:
    return time.isoformat() if time else ""


def _told(facts: dict[str, str]) -> dict[str, str]:
    return {name: fact for name, fact in facts.items() if fact}
