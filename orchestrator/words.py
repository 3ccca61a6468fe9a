"""Pure: how VMs, times and probes are put into words for people.

Called by whoever makes a sentence; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from .model import Judged, Probe, Vm, VmId

# A sentence about a whole group shall stay one.
NAMED = 10


def moment(time: datetime | None) -> str:
    """A time, in UTC."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else "a while ago"


def called(vm: Vm) -> str:
    """How a VM is called; clouds need not give it a name."""
    return vm.name or vm.vm_id


def names(group: Iterable[Judged]) -> str:
    """How these VMs are called; of many, the first."""
    found = [called(each.vm) for each in group]
    rest = len(found) - NAMED
    return ", ".join(found[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def probe_words(probes: Mapping[VmId, Probe]) -> dict[VmId, tuple[str, str]]:
    """Verdict and message of every probe."""
    return {vm_id: (each.verdict.name, each.message) for vm_id, each in probes.items()}
