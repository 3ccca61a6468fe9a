"""The world of a timeline in which another policy acts: its cloud, its prober and its VMs.

What the recorded holder made and destroyed does not happen: the replayed policy does both itself.
Its VMs take the timeline's time to boot and then serve, unless the timeline says that new VMs fail.
Pure but for its own fields; `replay` moves it and acts in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ..model import (
    Create,
    Fate,
    Method,
    Outcome,
    Probe,
    Repair,
    Step,
    Terminate,
    Verdict,
    Vm,
    VmId,
    VmState,
)
from .timeline import (
    ALL,
    NEW,
    Appears,
    BootTime,
    Doer,
    Edit,
    Gone,
    ListingChange,
    Others,
    Record,
    Refuses,
    StateChange,
    Timeline,
    VerdictChange,
)

_HEALTHY = Probe(Verdict.HEALTHY)
_WHOLE = ListingChange(at=0, complete=True)
_NOBODY = Others(at=0, failing=0, probed=0)


@dataclass(slots=True, kw_only=True)
class Body:
    """A VM as it really is: `probe` is its own truth, whatever the prober says of all."""

    vm: Vm
    probe: Probe = _HEALTHY
    # A VM that the policy made, or made anew in its place: what was recorded of it tells nothing.
    is_made: bool = False
    # While it boots: until when, and what it is then.
    boots_until: float | None = None
    becomes: VmState = VmState.RUNNING


@dataclass(slots=True)
class World:
    """One timeline being played; `at` is its present moment."""

    timeline: Timeline
    at: float = -1.0
    bodies: dict[VmId, Body] = field(default_factory=dict)
    count: int = 0
    spec_hash: str = ""
    removed_at: float | None = None
    listing: ListingChange = _WHOLE
    others: Others = _NOBODY
    # What the prober says of everybody; None when each VM speaks for itself.
    said_of_all: Probe | None = None
    new_state: VmState = VmState.RUNNING
    new_fault: str = ""
    new_probe: Probe = _HEALTHY
    boot_time: float = 0.0
    refusing: list[Refuses] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        """As the head says."""
        head = self.timeline.head
        self.count, self.spec_hash, self.boot_time = head.count, head.spec_hash, head.boot_time

    def advance(self, at: float, records: list[Record]) -> None:
        """Let time pass, and all this happen."""
        for record in records:
            self.at = record.at
            _HAPPEN.get(type(record), _nothing)(self, record)
        self.at = at
        for body in self.bodies.values():
            if body.boots_until is not None and body.boots_until <= at:
                body.boots_until, body.vm = None, replace(body.vm, state=body.becomes)

    def now(self) -> datetime:
        """The true time."""
        return self.time(self.at)

    def time(self, at: float) -> datetime:
        """A moment of the timeline as a time."""
        return self.timeline.head.start + timedelta(seconds=at)

    def vms(self) -> tuple[Vm, ...]:
        """What the cloud lists."""
        return tuple(body.vm for body in self.bodies.values())

    def probes(self) -> dict[VmId, Probe]:
        """What the prober says of VMs that run."""
        running = (body for body in self.bodies.values() if body.vm.state is VmState.RUNNING)
        return {body.vm.vm_id: self.said_of_all or body.probe for body in running}

    def serving(self) -> int:
        """VMs that really serve, for all that is recorded."""
        return sum(
            body.vm.state is VmState.RUNNING and body.probe.verdict is not Verdict.UNHEALTHY
            for body in self.bodies.values()
        )

    def carry_out(self, step: Step) -> Outcome:
        """What the cloud answers to a step."""
        if isinstance(step, Create):
            return self._create(step)
        if isinstance(step, Terminate):
            self.bodies.pop(step.vm.vm_id, None)
        elif isinstance(step, Repair):
            self._repair(step)
        return Outcome(step=step, fate=Fate.DONE, vm_id=step.vm.vm_id)

    def _create(self, step: Create) -> Outcome:
        if refusal := self._refusal(step):
            return Outcome(
                step=step, fate=Fate.FAILED, reason=refusal.reason, message=refusal.message
            )
        self.made += 1
        intent, place = step.intent, step.intent.placement
        vm = Vm(
            vm_id=VmId(f"{NEW}-{self.made}"),
            name=intent.name,
            state=VmState.PENDING,
            image=place.image,
            flavor=place.flavor,
            zone=place.zone,
            created=self.now(),
            request_id=intent.request_id,
            spec_hash=intent.spec_hash,
        )
        self.bodies[vm.vm_id] = self._fresh(vm)
        return Outcome(step=step, fate=Fate.DONE, vm_id=vm.vm_id)

    def _fresh(self, vm: Vm) -> Body:
        """A VM that boots now, with the fate of VMs that are made now."""
        return Body(
            vm=replace(vm, fault=self.new_fault),
            probe=self.new_probe,
            is_made=True,
            boots_until=self.at + self.boot_time,
            becomes=self.new_state,
        )

    def _repair(self, step: Repair) -> None:
        """A reboot takes the time of a boot and cures nothing; a rebuilt VM is a new one."""
        body = self.bodies[step.vm.vm_id]
        vm = replace(body.vm, state=VmState.TRANSITIONING)
        if step.method is Method.REBUILD:
            self.bodies[vm.vm_id] = self._fresh(replace(vm, spec_hash=self.spec_hash))
            return
        body.vm, body.becomes = vm, VmState.RUNNING
        body.boots_until = self.at + self.boot_time

    def _refusal(self, step: Create) -> Refuses | None:
        place = step.intent.placement
        for each in self.refusing:
            wanted = (each.image, each.flavor, each.zone)
            chosen = (place.image, place.flavor, place.zone)
            fits = all(not a or a == b for a, b in zip(wanted, chosen, strict=True))
            if fits and (each.until is None or self.at < each.until):
                return each
        return None

    def recorded(self, vm_id: VmId) -> Body | None:
        """A VM of the timeline that is still there, and still the one that was recorded."""
        body = self.bodies.get(vm_id)
        return None if body is None or body.is_made else body


def _appears(world: World, record: Appears) -> None:
    if record.at > 0 and record.by is Doer.HOLDER:
        return
    vm = Vm(
        vm_id=record.vm_id,
        name=record.name or record.vm_id,
        state=record.state,
        image=record.image,
        flavor=record.flavor,
        zone=record.zone,
        created=world.time(record.created),
        shutdown_at=None if record.shutdown is None else world.time(record.shutdown),
        protected=record.protected,
        spec_hash=record.spec_hash or world.spec_hash,
    )
    world.bodies[vm.vm_id] = Body(vm=vm, probe=Probe(record.verdict))


def _state(world: World, record: StateChange) -> None:
    if record.vm_id == NEW:
        world.new_state, world.new_fault = record.state, record.fault
        return
    body = world.recorded(record.vm_id)
    if body is None or record.by is Doer.HOLDER:
        return
    body.boots_until = None
    body.vm = replace(
        body.vm, state=record.state, cloud_state=record.cloud_state, fault=record.fault
    )


def _gone(world: World, record: Gone) -> None:
    if record.by is not Doer.HOLDER and world.recorded(record.vm_id):
        del world.bodies[record.vm_id]


def _verdict(world: World, record: VerdictChange) -> None:
    probe = None if record.verdict is None else Probe(record.verdict, record.message)
    if record.vm_id == ALL:
        world.said_of_all = probe
    elif probe is not None and record.vm_id == NEW:
        world.new_probe = probe
    elif probe is not None and (body := world.recorded(record.vm_id)):
        body.probe = probe


def _listing(world: World, record: ListingChange) -> None:
    world.listing = record


def _refuses(world: World, record: Refuses) -> None:
    world.refusing.append(record)


def _boot_time(world: World, record: BootTime) -> None:
    world.boot_time = record.seconds


def _edit(world: World, record: Edit) -> None:
    if record.count is not None:
        world.count = record.count
    if record.spec_hash is not None:
        world.spec_hash = record.spec_hash
    if record.removed is not None:
        world.removed_at = record.at if record.removed else None


def _others(world: World, record: Others) -> None:
    world.others = record


def _nothing(world: World, record: Record) -> None:
    """What people ask, and what befalls the holder, is not the world's."""


_HAPPEN: dict[type[Record], Callable[..., None]] = {
    Appears: _appears,
    StateChange: _state,
    Gone: _gone,
    VerdictChange: _verdict,
    ListingChange: _listing,
    Refuses: _refuses,
    BootTime: _boot_time,
    Edit: _edit,
    Others: _others,
}
