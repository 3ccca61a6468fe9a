"""What the driver knows of VMs from before: where each is, and how it was last seen.

Whatever reads a VM tells it, and whoever watches hears of what differs.  A help, never a proof: all
of it may be lost, and then costs a few calls more.  Its size is that of our VMs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ...domain import Changed, Gone, Vm, VmId, VmState
from ...feed import Feed
from .api import Api

_GONE: Final = 10_000


class Memory:
    """Of one provider."""

    def __init__(self) -> None:
        self.feed = Feed()
        self._places: dict[VmId, Api] = {}
        self._vms: dict[VmId, Vm | None] = {}
        # What is gone never comes back: an answer that was long under way must not revive it.
        self._gone: set[VmId] = set()
        self._gone_in_order: deque[VmId] = deque()

    def saw(self, api: Api, vm: Vm) -> Vm:
        """One of our VMs, as it is now; with its fault, if that was told before."""
        last = self._vms.get(vm.vm_id)
        if last is not None and vm.state is last.state is VmState.ERROR and not vm.fault:
            vm = replace(vm, fault=last.fault)
        if vm.vm_id not in self._gone:
            self._places[vm.vm_id] = api
            self._vms[vm.vm_id] = vm
            if vm != last:
                self.feed.publish(Changed(vm=vm))
        return vm

    def exists(self, api: Api, vm_id: VmId) -> None:
        """A VM that cannot be shown now."""
        self._places[vm_id] = api
        self._vms.setdefault(vm_id, None)

    def forget(self, vm_id: VmId) -> None:
        """It is not ours."""
        self._places.pop(vm_id, None)
        self._vms.pop(vm_id, None)

    def bury(self, vm_id: VmId) -> None:
        """It is gone."""
        if vm_id not in self._gone:
            self._gone.add(vm_id)
            self._gone_in_order.append(vm_id)
            if len(self._gone_in_order) > _GONE:
                self._gone.discard(self._gone_in_order.popleft())
        last = self._vms.get(vm_id)
        self.forget(vm_id)
        if last is not None:
            gone = replace(last, state=VmState.TERMINATED, cloud_state="DELETED")
            self.feed.publish(Gone(vm=gone))

    def place(self, vm_id: VmId) -> Api | None:
        """Where it is, if that is known."""
        return self._places.get(vm_id)

    def last(self, vm_id: VmId) -> Vm | None:
        """How it was last seen."""
        return self._vms.get(vm_id)

    def of(self, api: Api) -> Sequence[VmId]:
        """All that were in a place."""
        return [vm_id for vm_id, place in self._places.items() if place is api]
