"""The cloud of the simulation: the truth about every VM ever made, and how badly it is told.

Two models: `keyed` makes one VM of two creates under one request id (as EC2 does by its client
token), `keyless` does not (as OpenStack). Effects happen in the cloud's own time, whoever asked is
alive or not; listings lag behind; a cell that is down hides its VMs. The invariants hear of every
mutation before it takes effect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

from iaas_service import marker
from iaas_service.domain import (
    Address,
    Catalog,
    Changed,
    Gone,
    Listing,
    Order,
    Spec,
    Vm,
    VmId,
    VmState,
)
from iaas_service.feed import Feed, Subscription
from iaas_service.port import Trait
from vmshepherd_kit.errors import (
    AlreadyExists,
    BadRequest,
    NoCapacity,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    ShepherdError,
    Unavailable,
)

from .clocks import BEGINNING
from .loop import Kernel
from .network import CALLER, Caller
from .trace import Trace

HORIZON = timedelta(seconds=120)
CELLS = 3
# A driver owes us every VM of the suite or the word that the listing is not whole; what may be
# missing without a word is what everybody has seen before.
FORGETS_AFTER = 300.0
DEAD = {VmState.TERMINATED, VmState.ERROR}
BAD_IMAGE = "bad"


@dataclass
class Body:
    """A VM as it really is."""

    vm_id: VmId
    name: str
    number: int
    request_id: str
    preset: str
    token: int
    spec_hash: str
    born: float
    boots_until: float
    visible_from: float
    cell: int
    metadata: dict[str, str]
    spec: Spec
    state: VmState = VmState.PENDING
    is_sick: bool = False
    """Its service does not answer."""
    is_foreign: bool = False
    running_since: float | None = None
    warm_from: float = 0.0
    """When its service answers for the first time: a while after the VM runs."""
    well_since: float | None = None
    fails_since: float | None = None
    """Since when probes of it fail, its warming up included."""
    was_well: bool = False
    mended_at: float | None = None
    """When it was rebooted or rebuilt, the last time."""
    ended_at: float | None = None
    """When it died without us."""
    protected_at: float | None = None
    guarded_at: float | None = None
    """Since when a person's protection by the suite is known to be recorded."""
    ends_at: float | None = None
    """The shutdown that was announced."""
    was_announced: bool = False
    """Whether one was ever announced."""
    started_again_at: float = -1e9
    """When a person, who had stopped it, started it."""
    shown: Vm | None = None
    """As it was shown last."""
    asked_away_at: float | None = None
    """When its termination was carried out by the cloud."""
    gone_from: float | None = None
    ended_by: str = ""
    """Who or what ended its life: a replica's termination, a fault, a person."""

    @property
    def is_alive(self) -> bool:
        """Whether it exists and nothing has ended it."""
        return self.state not in DEAD and self.asked_away_at is None and self.gone_from is None

    @property
    def is_hurt(self) -> bool:
        """Whether it lives, was made to serve, and somebody but us keeps it from serving."""
        return self.is_alive and (self.is_sick or self.state is VmState.STOPPED)

    @property
    def is_repaired(self) -> bool:
        """Whether it is being rebooted or rebuilt, or warms up after it."""
        return self.is_alive and self.mended_at is not None and self.well_since is None

    def died_since(self, moment: float) -> bool:
        """Whether it has died, by no act of ours, after that moment."""
        return self.ended_at is not None and self.ended_at > moment


class Watch(Protocol):
    """Who is told of mutations, before they happen."""

    def asked(self, caller: Caller | None, preset: str, token: int) -> None:
        """iaas_service hands a mutation to the cloud."""

    def creating(self, order: Order, caller: Caller | None) -> None:
        """A create takes effect, and a VM comes into being."""

    def terminating(self, body: Body, caller: Caller | None) -> None:
        """A termination takes effect."""

    def repairing(self, body: Body, caller: Caller | None) -> None:
        """A reboot or a rebuild takes effect."""


@dataclass
class Temper:
    """How the cloud behaves at present."""

    latency: tuple[float, float] = (0.05, 0.8)
    boot: tuple[float, float] = (8.0, 40.0)
    warming: tuple[float, float] = (0.0, 80.0)
    visible_after: tuple[float, float] = (0.0, 8.0)
    loses_answers: float = 0.0
    """Probability that a mutation is carried out and its answer is not heard."""
    is_late: float = 0.0
    """Probability that an effect comes seconds after the cloud has said that it cannot."""
    refuses: float = 0.0
    """Probability that a call is refused at the door: Unavailable, nothing done."""
    slow_boots: float = 0.0
    """Probability that a VM boots for minutes."""
    stillborn: float = 0.0
    vanishes: float = 0.0
    """Probability that a VM is gone before anybody has listed it."""
    quota: int = 10_000
    short: set[tuple[str, str]] = field(default_factory=set)
    """Flavors for which a zone has no room."""
    used_up: set[str] = field(default_factory=set)
    """Flavors whose own quota is used up."""
    cells_down: set[int] = field(default_factory=set)
    """Cells that do not answer: their VMs are missing from listings, and cannot be read by id."""
    cells_hidden: set[int] = field(default_factory=set)
    """Cells that listings forget, though their VMs can be read by id."""
    admits_gaps: bool = True
    """Whether a listing without the VMs of a cell says that it is not whole."""


class Truth:
    """Every VM that ever was, and what the cloud does by itself."""

    def __init__(
        self, kernel: Kernel, trace: Trace, seed: int, *, keyed: bool, eventful: bool
    ) -> None:
        self.kernel = kernel
        self.trace = trace
        self.keyed = keyed
        self.eventful = eventful
        self.temper = Temper()
        self.bodies: dict[VmId, Body] = {}
        self.watch: Watch | None = None
        self.mutations = 0
        self.last_mutation = 0.0
        self.feeds: list[Feed] = []
        self._random = random.Random(seed)
        self._requests: dict[str, VmId] = {}
        self._number = 0

    # What is true

    def living(self, preset: str) -> list[Body]:
        """VMs of a preset that live and bear our marker."""
        return [b for b in self.bodies.values() if b.preset == preset and b.is_alive]

    def serving(self, preset: str) -> list[Body]:
        """VMs of a preset that really serve."""
        return [b for b in self.living(preset) if b.state is VmState.RUNNING and b.well_since]

    def chance(self, probability: float) -> bool:
        """Whether it happens this time."""
        return probability > 0 and self._random.random() < probability

    def between(self, bounds: tuple[float, float]) -> float:
        """A number of the cloud's own."""
        return self._random.uniform(*bounds)

    # What happens

    def put_foreign(self, name: str, metadata: dict[str, str]) -> Body:
        """A VM of somebody else, of a name like ours."""
        self._number += 1
        body = Body(
            vm_id=VmId(f"vm-{self._number:05d}"),
            name=name,
            number=self._number,
            request_id="",
            preset="",
            token=0,
            spec_hash="",
            born=self.kernel.now,
            boots_until=0.0,
            visible_from=0.0,
            cell=self._number % CELLS,
            metadata=metadata,
            spec=Spec(),
            state=VmState.RUNNING,
            is_foreign=True,
        )
        self.bodies[body.vm_id] = body
        return body

    def create(self, order: Order, caller: Caller | None) -> Body:
        """A create takes effect."""
        request_id = order.marker.request_id
        if self.keyed and request_id in self._requests:
            return self._again(order, self.bodies[self._requests[request_id]])
        self._require_room(order.spec)
        if self.watch:
            self.watch.creating(order, caller)
        body = self._born(order)
        self.trace.add(
            self.kernel.now,
            f"+ {body.vm_id} of {body.preset} token {body.token} request {request_id[:8]}"
            f" by {caller.process if caller else '?'}",
        )
        self._tell(body)
        return body

    def terminate(self, vm_id: VmId, caller: Caller | None) -> bool:
        """A termination takes effect."""
        body = self.bodies.get(vm_id)
        if body is None or body.gone_from is not None:
            return False
        if body.is_alive or body.state is VmState.ERROR:
            if self.watch:
                self.watch.terminating(body, caller)
            self._moved()
        by = caller.process if caller else "?"
        self.trace.add(self.kernel.now, f"- {vm_id} of {body.preset} by {by}")
        body.ended_by = body.ended_by or by
        body.asked_away_at = body.asked_away_at or self.kernel.now
        self.kernel.call_later(self.between((1.0, 15.0)), lambda: self._gone(body))
        self._tell(body)
        return True

    def kill(self, body: Body, by: str, state: VmState = VmState.TERMINATED) -> None:
        """A VM dies; nobody of us asked for it."""
        if not body.is_alive:
            return
        body.state, body.ended_by, body.ended_at = state, by, self.kernel.now
        self.trace.add(self.kernel.now, f"! {body.vm_id} of {body.preset} dies: {by}")
        if state is VmState.TERMINATED:
            self.kernel.call_later(self.between((5.0, 60.0)), lambda: self._gone(body))
        self._tell(body)

    def protect(self, body: Body) -> None:
        """A person protects a VM by its metadata."""
        body.metadata = {**body.metadata, marker.PROTECTED: "true"}
        body.protected_at = self.kernel.now

    def unprotect(self, body: Body) -> None:
        """A person ends the protection."""
        body.metadata = {k: v for k, v in body.metadata.items() if k != marker.PROTECTED}
        body.protected_at = None

    def repair(self, vm_id: VmId, caller: Caller | None, *, spec: Spec | None = None) -> Body:
        """A reboot takes effect, or with a spec a rebuild; it heals for sure by a rebuild alone."""
        body = self.bodies.get(vm_id)
        if body is None or not body.is_alive:
            raise NotFound(f"no VM {vm_id}")
        if self.watch:
            self.watch.repairing(body, caller)
        self._moved()
        by = caller.process if caller else "?"
        self.trace.add(self.kernel.now, f"~ {vm_id} of {body.preset} by {by}")
        if spec is not None:
            body.spec = replace(body.spec, image=spec.image or body.spec.image)
        is_healed = spec is not None or self.chance(0.6)
        body.is_sick = body.spec.image == BAD_IMAGE or (body.is_sick and not is_healed)
        body.state, body.running_since, body.was_well = VmState.TRANSITIONING, None, False
        body.well_since, body.fails_since, body.mended_at = None, None, self.kernel.now
        body.boots_until = self.kernel.now + self.between(self.temper.boot)
        self.kernel.call_at(body.boots_until, lambda: self._booted(body, stillborn=False))
        self._tell(body)
        return body

    def announce_end(self, body: Body, seconds: float) -> None:
        """Whoever runs the cloud announces when the VM will be shut down, and does it."""
        body.was_announced = True
        at = body.ends_at = self.kernel.now + seconds
        told = (BEGINNING + timedelta(seconds=at)).isoformat()
        body.metadata = {**body.metadata, marker.TIMED_SHUTDOWN: told}
        self.kernel.call_at(at, lambda: self._shut_down(body, at))

    def take_back_end(self, body: Body) -> None:
        """The announcement was a mistake."""
        body.ends_at = None
        body.metadata = {k: v for k, v in body.metadata.items() if k != marker.TIMED_SHUTDOWN}

    def _shut_down(self, body: Body, at: float) -> None:
        if body.ends_at == at:
            self.kill(body, "cloud")

    def _require_room(self, spec: Spec) -> None:
        temper = self.temper
        if sum(1 for b in self.bodies.values() if b.is_alive) >= temper.quota:
            raise QuotaExceeded("the quota of VMs is used up")
        if spec.flavor in temper.used_up:
            raise QuotaExceeded(f"the quota for flavor {spec.flavor} is used up")
        if (spec.flavor, spec.availability_zone) in temper.short:
            raise NoCapacity(f"no host of {spec.availability_zone} has room for {spec.flavor}")

    def _again(self, order: Order, body: Body) -> Body:
        if body.preset != order.marker.preset or body.spec != order.spec:
            raise AlreadyExists("used for another VM", reason="REQUEST_ID_REUSED")
        return body

    def _born(self, order: Order) -> Body:
        self._number += 1
        now, mark = self.kernel.now, order.marker
        boot = (200.0, 900.0) if self.chance(self.temper.slow_boots) else self.temper.boot
        body = Body(
            vm_id=VmId(f"vm-{self._number:05d}"),
            name=order.name,
            number=self._number,
            request_id=mark.request_id,
            preset=mark.preset,
            token=mark.fencing_token,
            spec_hash=mark.spec_hash,
            born=now,
            boots_until=now + self.between(boot),
            visible_from=now + self.between(self.temper.visible_after),
            cell=self._number % CELLS,
            metadata={**order.spec.metadata, **marker.write(mark)},
            spec=order.spec,
        )
        body.is_sick = order.spec.image == BAD_IMAGE
        self.bodies[body.vm_id] = body
        self._requests[mark.request_id] = body.vm_id
        self._moved()
        if self.chance(self.temper.vanishes):
            self.kernel.call_later(0.01, lambda: self._vanish(body))
        stillborn = self.chance(self.temper.stillborn)
        self.kernel.call_at(body.boots_until, lambda: self._booted(body, stillborn=stillborn))
        return body

    def hurry(self, body: Body) -> None:
        """A VM that boots boots as fast as any other."""
        body.boots_until = min(body.boots_until, self.kernel.now + self.between(self.temper.boot))
        self.kernel.call_at(body.boots_until, lambda: self._booted(body, stillborn=False))

    def _booted(self, body: Body, *, stillborn: bool) -> None:
        is_booting = body.state in {VmState.PENDING, VmState.TRANSITIONING}
        if not is_booting or self.kernel.now < body.boots_until:
            return
        body.state = VmState.ERROR if stillborn else VmState.RUNNING
        now = body.running_since = self.kernel.now
        body.warm_from = now + self.between(self.temper.warming)
        body.fails_since = now
        self.kernel.call_at(body.warm_from, lambda: self.feel(body))
        self._tell(body)

    def _vanish(self, body: Body) -> None:
        self.kill(body, "fault")
        self._gone(body)

    def feel(self, body: Body) -> None:
        """Note since when its service answers, or does not."""
        now = self.kernel.now
        if body.is_sick or now < body.warm_from:
            body.well_since, body.fails_since = None, body.fails_since or now
        else:
            body.well_since, body.fails_since = body.well_since or now, None
            body.was_well = True

    def _gone(self, body: Body) -> None:
        if body.gone_from is None:
            body.gone_from = self.kernel.now
            for feed in self.feeds:
                feed.publish(Gone(vm=self.show(body)))

    def _moved(self) -> None:
        self.mutations += 1
        self.last_mutation = self.kernel.now

    def _tell(self, body: Body) -> None:
        for feed in self.feeds:
            feed.publish(Changed(vm=self.show(body)))

    # What is told

    def show(self, body: Body) -> Vm:
        """A VM as the cloud reports it."""
        state = body.state
        if body.asked_away_at is not None and state not in DEAD:
            state = VmState.DELETING
        known = body.shown
        if known and known.state is state and known.metadata is body.metadata:
            return known
        body.shown = Vm(
            vm_id=body.vm_id,
            name=body.name,
            state=state,
            create_time=BEGINNING + timedelta(seconds=round(body.born, 3)),
            metadata=body.metadata,
            cloud_state=state.name,
            addresses=(Address(ip=f"10.0.{body.number // 250}.{body.number % 250 + 1}"),),
            image=body.spec.image,
            flavor=body.spec.flavor,
            zone=body.spec.availability_zone,
        )
        return body.shown

    def listed(self) -> Listing:
        """What a listing shows now, and whether it says that it is whole."""
        down, now = self.temper.cells_down, self.kernel.now
        shown = [
            self.show(body)
            for body in self.bodies.values()
            if body.gone_from is None and body.visible_from <= now and not self._is_left_out(body)
        ]
        if down and self.temper.admits_gaps:
            return Listing(vms=shown, complete=False, incomplete_reason="a cell is down")
        return Listing(vms=shown)

    def _is_left_out(self, body: Body) -> bool:
        """Whether a listing has forgotten it; one that says nothing forgets no newborn VM."""
        cells = self.temper.cells_down | self.temper.cells_hidden
        if body.cell not in cells:
            return False
        is_told = body.cell in self.temper.cells_down and self.temper.admits_gaps
        return is_told or self.kernel.now - body.born > FORGETS_AFTER

    def read(self, vm_id: VmId) -> Vm | ShepherdError:
        """One VM by its id."""
        body = self.bodies.get(vm_id)
        if body is None or body.gone_from is not None:
            return NotFound(f"no VM {vm_id}")
        if body.cell in self.temper.cells_down:
            return Unavailable(f"the cell of {vm_id} is down")
        return self.show(body)


class SimCloud:
    """The driver within one iaas_service: `iaas_service.port.Cloud` over the truth."""

    horizon = HORIZON

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._feed = Feed()
        if truth.eventful:
            truth.feeds.append(self._feed)

    @property
    def traits(self) -> frozenset[Trait]:
        """What this model of a cloud can do."""
        model = {Trait.IDEMPOTENT_CREATE} if self._truth.keyed else {Trait.REBUILD}
        feed = {Trait.EVENTS} if self._truth.eventful else set()
        return frozenset({Trait.REBOOT} | model | feed)

    async def list(self) -> Listing:
        """All that is visible; the VMs of a cell that is down are silently left out."""
        await self._passed()
        listing: Listing = await self._asked(self._truth.listed)
        return listing

    async def get(self, vm_ids: Sequence[VmId]) -> Sequence[Vm | ShepherdError]:
        """In order."""
        await self._passed()
        found: list[Vm | ShepherdError] = await self._asked(
            lambda: [self._truth.read(vm_id) for vm_id in vm_ids]
        )
        return found

    async def create(self, order: Order) -> Vm:
        """Make a VM, sometimes without saying so."""
        if order.spec.image == "none":
            raise BadRequest("there is no image none")
        caller, mark = CALLER.get(), order.marker
        self._ask(caller, mark.preset, mark.fencing_token)
        body = await self._mutated(lambda: self._truth.create(order, caller))
        return self._truth.show(body)

    async def terminate(self, vm: Vm) -> bool:
        """Destroy a VM, sometimes without saying so."""
        caller = CALLER.get()
        self._ask_about(caller, vm)
        existed: bool = await self._mutated(lambda: self._truth.terminate(vm.vm_id, caller))
        return existed

    async def reboot(self, vm: Vm) -> Vm:
        """Restart a VM, sometimes without saying so."""
        caller = CALLER.get()
        self._ask_about(caller, vm)
        body = await self._mutated(lambda: self._truth.repair(vm.vm_id, caller))
        return self._truth.show(body)

    async def rebuild(self, vm: Vm, spec: Spec, *, spec_hash: str) -> Vm:
        """Make a VM anew in its place, sometimes without saying so."""
        caller = CALLER.get()
        self._ask_about(caller, vm)

        def rebuilt() -> Body:
            body = self._truth.repair(vm.vm_id, caller, spec=spec)
            body.metadata = marker.rewritten(body.metadata, spec_hash=spec_hash)
            return body

        return self._truth.show(await self._mutated(rebuilt))

    async def catalog(self) -> Catalog:
        """Nothing to choose from."""
        return Catalog()

    def watch(self) -> AbstractContextManager[Subscription]:
        """Changes as they happen."""
        return self._feed.subscribe()

    def _ask_about(self, caller: Caller | None, vm: Vm) -> None:
        mutation = caller.mutation(vm.vm_id) if caller else None
        if mutation:
            self._ask(caller, mutation.preset, mutation.fencing_token)

    def _ask(self, caller: Caller | None, preset: str, token: int) -> None:
        if self._truth.watch:
            self._truth.watch.asked(caller, preset, token)

    async def _passed(self) -> None:
        if self._truth.chance(self._truth.temper.refuses):
            raise Unavailable("the cloud refuses: 503")

    async def _asked(self, read: Callable[[], Any]) -> Any:
        """Travel, be answered, travel back."""
        return await self._travel(read, effect_after=0.0, answers=True)

    async def _mutated(self, effect: Callable[[], Any]) -> Any:
        await self._passed()
        truth = self._truth
        if truth.chance(truth.temper.is_late):
            # Accepted, said to have failed, and carried out a while later.
            await self._travel(effect, effect_after=truth.between((1.0, 15.0)), answers=False)
        if truth.chance(truth.temper.loses_answers):
            await self._travel(effect, effect_after=0.0, answers=False)
        return await self._travel(effect, effect_after=0.0, answers=True)

    async def _travel(
        self, effect: Callable[[], Any], *, effect_after: float, answers: bool
    ) -> Any:
        truth, loop = self._truth, asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        there, back = truth.between(truth.temper.latency), truth.between(truth.temper.latency)

        def arrive() -> None:
            outcome = _tried(effect)
            if answers:
                truth.kernel.call_later(back, lambda: loop.call_soon(_settle, answer, outcome))

        truth.kernel.call_later(there + effect_after, arrive)
        if not answers:
            lost = OutcomeUnknown("503 after it was accepted: it may be carried out")
            truth.kernel.call_later(there + back, lambda: loop.call_soon(_settle, answer, lost))
        return await answer


def _tried(effect: Callable[[], Any]) -> Any:
    try:
        return effect()
    except ShepherdError as e:
        return e


def _settle(answer: asyncio.Future[Any], outcome: Any) -> None:
    if answer.done():
        return
    if isinstance(outcome, ShepherdError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
