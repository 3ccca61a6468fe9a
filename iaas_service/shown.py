"""Messages of VMs as they were last listed: of one that has not changed, none is made anew.

Making the messages is most of the work of a large listing. Called by the servicer; the newest
listing decides what is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmshepherd.iaas.v1 import vm_pb2

from . import convert
from .domain import Marker, Vm, VmId

# Beyond twice the newest listing, and so many more, what is no longer listed is dropped.
_SLACK = 1000


class Shown:
    """The messages of one provider's VMs."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._known: dict[VmId, tuple[Vm, vm_pb2.Vm]] = {}

    def messages(self, vms: Iterable[tuple[Vm, Marker]]) -> list[vm_pb2.Vm]:
        """The VMs of a page."""
        return [self._message(vm, mark) for vm, mark in vms]

    def trim(self, listed: Sequence[tuple[Vm, Marker]]) -> None:
        """Drop what a new listing does not show, once that is much."""
        if len(self._known) > 2 * len(listed) + _SLACK:
            present = {vm.vm_id for vm, _ in listed}
            self._known = {vm_id: kept for vm_id, kept in self._known.items() if vm_id in present}

    def _message(self, vm: Vm, mark: Marker) -> vm_pb2.Vm:
        known = self._known.get(vm.vm_id)
        if known is not None and known[0] == vm:
            return known[1]
        message = convert.vm_message(self._provider, vm, mark)
        self._known[vm.vm_id] = (vm, message)
        return message
