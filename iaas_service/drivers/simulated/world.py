"""The world behind the simulated cloud: its VMs, and what people and bad luck do to them.

The driver reads and changes it; tests do so too, past the driver.  Nothing here waits or fails.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from vmshepherd_kit.errors import (
    NoCapacity,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    ShepherdError,
    Unavailable,
    Violation,
)

from ...domain import Changed, Gone, Order, Vm, VmId, VmState
from ...feed import Feed

CELLS: Final = 2
# Where VMs land whose order leaves the zone to the cloud.
DEFAULT_ZONE: Final = "simulated"


@dataclass(kw_only=True, slots=True)
class Record:
    """One VM of the world: what it was made from, what it is, and what is to come of it."""

    vm: Vm
    order: Order
    cell: int
    running_from: datetime
    gone_from: datetime | None = None
    undeletable: ShepherdError | None = None
    console: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateFailure:
    """How the next create fails, and whether it makes the VM all the same."""

    error: ShepherdError
    after_creating: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Shortage:
    """What no VM can be made of while it lasts; None is any."""

    error: Callable[[], ShepherdError]
    flavor: str | None = None
    zone: str | None = None
    image: str | None = None

    def concerns(self, *, flavor: str, zone: str, image: str) -> bool:
        """Whether such a VM cannot be made."""
        pairs = ((self.flavor, flavor), (self.zone, zone), (self.image, image))
        return all(short in {None, wanted} for short, wanted in pairs)


class SimulatedWorld:
    """All VMs of a simulated cloud; it outlives the driver when it is given to the next one."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.records: dict[VmId, Record] = {}
        # Every create ever answered, so that a repeat is recognised when its VM is gone.
        self.made: dict[str, Record] = {}
        self.create_failures: deque[CreateFailure] = deque()
        self.shortages: list[Shortage] = []
        self.cell_is_down = False
        self.cell_is_silent = False
        self._count = 0
        # Those that time alone will change: few, so that a great world ages cheaply.
        self._unsettled: dict[VmId, Record] = {}

    @property
    def vms(self) -> list[Vm]:
        """The VMs, oldest first, whatever the cloud's listing says of them."""
        return [record.vm for record in self.records.values()]

    def add(
        self, vm: Vm, order: Order, *, running_from: datetime, is_known_by_request: bool
    ) -> Record:
        """A new VM."""
        cell = self._count % CELLS
        self._count += 1
        record = Record(vm=vm, order=order, cell=cell, running_from=running_from)
        self.records[vm.vm_id] = record
        self._unsettled[vm.vm_id] = record
        if is_known_by_request:
            self.made[order.marker.request_id] = record
        self.feed.publish(Changed(vm=vm))
        return record

    def age(self, now: datetime) -> None:
        """Let boots and deletions come to their end."""
        for record in list(self._unsettled.values()):
            if record.gone_from is not None and record.gone_from <= now:
                self.vanish(record.vm.vm_id)
            elif record.vm.state is VmState.PENDING and record.running_from <= now:
                self._set(record, VmState.RUNNING, "ACTIVE")

    def visible(self, vms: Iterable[Record]) -> list[Vm]:
        """What a listing shows of them: nothing of a cell that is down."""
        return [r.vm for r in vms if not self.is_unreachable(r)]

    def require_supply(self, *, flavor: str, zone: str, image: str) -> None:
        """Raise what is short of such a VM, the first that was told."""
        for shortage in self.shortages:
            if shortage.concerns(flavor=flavor, zone=zone, image=image):
                raise shortage.error()

    def is_unreachable(self, record: Record) -> bool:
        """Whether the VM's cell is down."""
        return self.cell_is_down and record.cell == CELLS - 1

    # What people and bad luck do.

    def kill(self, vm_id: str) -> None:
        """It ends for good; its record stays."""
        self._set(self._record(vm_id), VmState.TERMINATED, "TERMINATED", "killed")

    def error(self, vm_id: str, fault: str = "No valid host was found") -> None:
        """The cloud gives it up."""
        self._set(self._record(vm_id), VmState.ERROR, "ERROR", fault)

    def stop(self, vm_id: str) -> None:
        """A person stops it."""
        self._set(self._record(vm_id), VmState.STOPPED, "SHUTOFF")

    def start(self, vm_id: str) -> None:
        """A person starts it."""
        self._set(self._record(vm_id), VmState.RUNNING, "ACTIVE")

    def vanish(self, vm_id: str) -> None:
        """Not even its record is left."""
        record = self._record(vm_id)
        del self.records[record.vm.vm_id]
        self._unsettled.pop(record.vm.vm_id, None)
        record.vm = replace(record.vm, state=VmState.TERMINATED, cloud_state="DELETED")
        self.feed.publish(Gone(vm=record.vm))

    def relabel(self, vm_id: str, **metadata: str) -> None:
        """Somebody writes metadata; an empty value removes the key."""
        record = self._record(vm_id)
        merged = {key: v for key, v in {**record.vm.metadata, **metadata}.items() if v}
        record.vm = replace(record.vm, metadata=merged)
        self.feed.publish(Changed(vm=record.vm))

    def lock(self, vm_id: str) -> None:
        """The cloud itself is told never to delete it."""
        record = self._record(vm_id)
        record.vm = replace(record.vm, locked=True)

    def undeletable(self, vm_id: str, error: ShepherdError | None = None) -> None:
        """Each attempt to destroy it fails."""
        record = self._record(vm_id)
        record.undeletable = error or Unavailable("the cloud cannot delete this VM at present")

    def cell_down(self, down: bool = True, *, silently: bool = False) -> None:  # noqa: FBT001, FBT002
        """Every second VM is out of reach; silently: listings that miss them say they are whole."""
        self.cell_is_down, self.cell_is_silent = down, silently

    def no_capacity(self, flavor: str, zone: str) -> None:
        """The zone has no room for VMs of the flavor, until `restock`."""
        words = f"no host of zone {zone!r} has room for flavor {flavor!r}"
        self.shortages.append(Shortage(error=partial(NoCapacity, words), flavor=flavor, zone=zone))

    def quota_exceeded(self, flavor: str) -> None:
        """The quota allows no more VMs of the flavor in any zone, until `restock`."""
        words = f"the quota for flavor {flavor!r} is used up"
        self.shortages.append(Shortage(error=partial(QuotaExceeded, words), flavor=flavor))

    def image_missing(self, image: str) -> None:
        """Somebody removed the image; VMs made from it run on.  Until `restock`."""
        words = f"there is no image {image!r}"
        violations = [Violation("spec.image", words)]
        error = partial(NotFound, words, reason="IMAGE_NOT_FOUND", violations=violations)
        self.shortages.append(Shortage(error=error, image=image))

    def restock(self) -> None:
        """Nothing is short any more."""
        self.shortages.clear()

    def say(self, vm_id: str, text: str) -> None:
        """The VM says something on its console."""
        self._record(vm_id).console += text

    def next_create_fails(
        self, error: ShepherdError, *, after_creating: bool = False, times: int = 1
    ) -> None:
        """The next creates fail; with `after_creating` their VMs are made all the same."""
        failure = CreateFailure(error=error, after_creating=after_creating)
        self.create_failures.extend([failure] * times)

    def accepted_but_503(self, times: int = 1) -> None:
        """The next creates are answered 503, which proves nothing, and their VMs are made."""
        error = OutcomeUnknown("the cloud answered 503: nobody knows whether the VM was made")
        self.next_create_fails(error, after_creating=True, times=times)

    def change(self, record: Record, vm: Vm) -> None:
        """The VM is now this."""
        record.vm = vm
        if vm.state in {VmState.PENDING, VmState.DELETING}:
            self._unsettled[vm.vm_id] = record
        else:
            self._unsettled.pop(vm.vm_id, None)
        self.feed.publish(Changed(vm=vm))

    def _set(self, record: Record, state: VmState, cloud_state: str, fault: str = "") -> None:
        self.change(record, replace(record.vm, state=state, cloud_state=cloud_state, fault=fault))

    def _record(self, vm_id: str) -> Record:
        return self.records[VmId(vm_id)]
