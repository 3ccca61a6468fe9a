"""What goes wrong: kinds of faults, and a seeded schedule of which strikes when.

Each seed draws a swarm, some kinds and not others, so that every mixture is met. A fault that lasts
says how it ends, and `heal` ends all of them at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from iaas_service.domain import VmState

from .cloud import CELLS, Body
from .people import IMAGE, People
from .policies import FLAVORS, ZONES
from .processes import Process, Replica
from .suite import World

PER_HOUR = 120
MOST_REMOVED = 5
_ALWAYS = ("kill a replica", "a VM dies", "edit a count")

Strike = Callable[["Chaos"], str]


@dataclass(frozen=True)
class Fault:
    """One kind."""

    name: str
    weight: int
    strike: Strike


_FAULTS: list[Fault] = []


def fault(name: str, weight: int = 3) -> Callable[[Strike], Strike]:
    """Register a kind of fault."""

    def register(strike: Strike) -> Strike:
        _FAULTS.append(Fault(name, weight, strike))
        return strike

    return register


class Chaos:
    """Strikes a world until it is healed."""

    def __init__(
        self,
        world: World,
        people: People,
        *,
        only: tuple[str, ...] = (),
        per_hour: float = PER_HOUR,
    ) -> None:
        self.world = world
        self.people = people
        self.chance = random.Random(f"faults {world.shape.seed}")
        self.swarm = self._swarm(only)
        self.struck = 0
        self._per_hour = per_hour
        self._number = 0
        self._undo: dict[int, Callable[[], None]] = {}
        self._is_over = False

    def begin(self) -> None:
        """Strike from now on, now and then."""
        self._next()

    def heal(self) -> None:
        """End: every lasting fault is undone, whatever stands still or is down comes back."""
        self._is_over = True
        for process in self.world.processes:
            process.resume()
            process.start()
        for number in list(self._undo):
            self._undone(number)

    # What faults are made of

    def lasting(self, seconds: float, undo: Callable[[], None]) -> None:
        """Have a fault end after some time, or when all do."""
        self._number += 1
        number = self._number
        self._undo[number] = undo
        self.world.kernel.call_later(seconds, lambda: self._undone(number))

    def later(self, seconds: float, strike: Callable[[], None]) -> None:
        """A part of a fault that comes later, unless all is healed by then."""

        def struck() -> None:
            if not self._is_over:
                strike()

        self.world.kernel.call_later(seconds, struck)

    def replica(self) -> Replica:
        """One of the replicas."""
        return self.chance.choice(self.world.replicas)

    def service(self) -> Process:
        """One of the processes that replicas call."""
        world = self.world
        return self.chance.choice([*world.runtimes, world.iaas, world.health, world.presets])

    def preset(self) -> str:
        """One of the presets that are declared."""
        return self.chance.choice(sorted(set(self.world.ledger.counts) - self.world.removed))

    def bodies(self, preset: str) -> list[Body]:
        """Its living VMs, in some order."""
        living = self.world.truth.living(preset)
        self.chance.shuffle(living)
        return living

    def down(self, process: Process, seconds: float) -> None:
        """Kill a process, and start it again later."""
        process.kill()
        self.lasting(seconds, process.start)

    def _next(self) -> None:
        self.world.kernel.call_later(self.chance.expovariate(self._per_hour / 3600), self._strike)

    def _strike(self) -> None:
        if self._is_over:
            return
        kind = self.chance.choices(self.swarm, [each.weight for each in self.swarm])[0]
        told = kind.strike(self)
        self.struck += 1
        self.world.trace.add(self.world.kernel.now, f"* {kind.name}: {told}")
        self._next()

    def _undone(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo:
            undo()

    def _swarm(self, only: tuple[str, ...]) -> list[Fault]:
        fit = [f for f in _FAULTS if self.world.memory or f.name != "the store fails over"]
        if unknown := set(only) - {each.name for each in _FAULTS}:
            raise ValueError(f"no such faults: {sorted(unknown)}")
        if only:
            return [each for each in fit if each.name in only]
        return [each for each in fit if each.name in _ALWAYS or self.chance.random() < 0.55]


# Processes


@fault("kill a replica", 6)
def _kill_a_replica(chaos: Chaos) -> str:
    replica = chaos.replica()
    chaos.down(replica, chaos.chance.uniform(1, 60))
    return replica.name


@fault("kill a service", 4)
def _kill_a_service(chaos: Chaos) -> str:
    service = chaos.service()
    chaos.down(service, chaos.chance.uniform(1, 30))
    return service.name


@fault("a replica leaves and joins again", 6)
def _a_replica_leaves(chaos: Chaos) -> str:
    replica = chaos.replica()
    replica.stop()
    chaos.lasting(chaos.chance.uniform(2, 90), replica.start)
    return replica.name


@fault("a replica is starved", 3)
def _a_replica_is_starved(chaos: Chaos) -> str:
    replica, seconds = chaos.replica(), chaos.chance.uniform(30, 240)
    starve(chaos, replica, seconds)
    return f"{replica.name} for {seconds:.0f} s"


@fault("pause a process", 6)
def _pause_a_process(chaos: Chaos) -> str:
    process = chaos.replica() if chaos.chance.random() < 0.8 else chaos.service()
    process.pause()
    chaos.lasting(chaos.chance.uniform(3, 90), process.resume)
    return process.name


@fault("upgrade one after the other", 1)
def _upgrade(chaos: Chaos) -> str:
    for number, process in enumerate(chaos.world.processes):
        chaos.later(number * 12.0, process.stop)
        chaos.lasting(number * 12.0 + 8.0, process.start)
    return "all"


@fault("set a wall clock", 2)
def _set_a_clock(chaos: Chaos) -> str:
    process = chaos.replica() if chaos.chance.random() < 0.7 else chaos.service()
    process.skew = chaos.chance.uniform(-3600, 3600)
    # It takes force with the next life: a machine that comes up with another time.
    chaos.down(process, chaos.chance.uniform(1, 20))
    return f"{process.name} {process.skew:+.0f} s"


@fault("a wall clock is set while it runs", 2)
def _set_a_running_clock(chaos: Chaos) -> str:
    process = chaos.replica() if chaos.chance.random() < 0.8 else chaos.service()
    process.skew = chaos.chance.uniform(-3600, 3600)
    if process.life:
        process.life.clock.skew = process.skew
        chaos.world.clock_set_at = chaos.world.kernel.now
    return f"{process.name} {process.skew:+.0f} s"


# The network


@fault("cut a link", 6)
def _cut_a_link(chaos: Chaos) -> str:
    a, b = chaos.replica().name, chaos.service().name
    both = chaos.chance.random() < 0.5
    links = {(a, b), (b, a)} if both else {chaos.chance.choice([(a, b), (b, a)])}
    weather = chaos.world.network.weather
    weather.cut |= links
    chaos.lasting(chaos.chance.uniform(5, 120), lambda: weather.cut.difference_update(links))
    return f"{sorted(links)}"


@fault("a replica is cut off from a service", 3)
def _a_replica_is_cut_off(chaos: Chaos) -> str:
    a, service = chaos.replica().name, chaos.chance.choice(("iaas", "health", "preset"))
    cut_off(chaos, a, service, chaos.chance.uniform(60, 300))
    return f"{a} from {service}"


@fault("lose messages", 3)
def _lose_messages(chaos: Chaos) -> str:
    weather = chaos.world.network.weather
    weather.loses = chaos.chance.uniform(0.02, 0.3)
    chaos.lasting(chaos.chance.uniform(10, 60), lambda: setattr(weather, "loses", 0.0))
    return f"{weather.loses:.2f}"


@fault("deliver late", 4)
def _deliver_late(chaos: Chaos) -> str:
    weather = chaos.world.network.weather
    weather.delays = chaos.chance.uniform(0.02, 0.4)
    chaos.lasting(chaos.chance.uniform(10, 60), lambda: setattr(weather, "delays", 0.0))
    return f"{weather.delays:.2f}"


# The store


@fault("the store fails over", 2)
def _fail_over(chaos: Chaos) -> str:
    memory = chaos.world.memory
    if memory is None:
        return "nothing"
    lost = memory.fail_over(chaos.chance.randint(1, 40))
    chaos.world.lost_writes_at = chaos.world.kernel.now
    chaos.world.ledger.excuse_lost_writes()
    for process in chaos.world.runtimes:
        chaos.down(process, chaos.chance.uniform(0.5, 5))
    return f"{lost} writes lost"


# VMs


@fault("a VM dies", 8)
def _a_vm_dies(chaos: Chaos) -> str:
    for body in chaos.bodies(chaos.preset())[:1]:
        state = chaos.chance.choice((VmState.TERMINATED, VmState.TERMINATED, VmState.ERROR))
        chaos.world.truth.kill(body, "fault", state)
        return body.vm_id
    return "none"


@fault("many VMs die", 1)
def _many_vms_die(chaos: Chaos) -> str:
    bodies = chaos.bodies(chaos.preset())
    number = round(len(bodies) * chaos.chance.uniform(0.3, 1.0))
    for body in bodies[:number]:
        chaos.world.truth.kill(body, "fault")
    return f"{number} of {len(bodies)}"


@fault("a service hangs", 5)
def _a_service_hangs(chaos: Chaos) -> str:
    for body in chaos.bodies(chaos.preset())[:1]:
        _sicken(chaos, body)
        return body.vm_id
    return "none"


@fault("many services hang", 2)
def _many_services_hang(chaos: Chaos) -> str:
    bodies = chaos.bodies(chaos.preset())
    number = max(1, round(len(bodies) * chaos.chance.uniform(0.3, 1.0)))
    for body in bodies[:number]:
        _sicken(chaos, body)
    chaos.lasting(chaos.chance.uniform(60, 600), lambda: _cure(chaos, bodies[:number]))
    return f"{number} of {len(bodies)}"


@fault("a person deletes a VM in the cloud", 2)
def _a_person_deletes(chaos: Chaos) -> str:
    for body in chaos.bodies(chaos.preset())[:1]:
        chaos.world.truth.kill(body, "person")
        return body.vm_id
    return "none"


@fault("a person stops a VM", 1)
def _a_person_stops(chaos: Chaos) -> str:
    for body in chaos.bodies(chaos.preset())[:1]:
        if body.state is VmState.RUNNING:
            body.state = VmState.STOPPED
            chaos.lasting(chaos.chance.uniform(30, 300), partial(_started_again, chaos, body))
            return body.vm_id
    return "none"


@fault("a person protects a VM", 1)
def _a_person_protects(chaos: Chaos) -> str:
    for body in chaos.bodies(chaos.preset())[:1]:
        chaos.world.truth.protect(body)
        chaos.lasting(chaos.chance.uniform(60, 600), partial(chaos.world.truth.unprotect, body))
        return body.vm_id
    return "none"


@fault("a shutdown is announced", 2)
def _a_shutdown_is_announced(chaos: Chaos) -> str:
    truth = chaos.world.truth
    for body in chaos.bodies(chaos.preset())[:1]:
        truth.announce_end(body, chaos.chance.uniform(60, 1200))
        chaos.lasting(1300.0, partial(truth.take_back_end, body))
        return body.vm_id
    return "none"


# The prober


@fault("the prober is cut off", 3)
def _the_prober_is_cut_off(chaos: Chaos) -> str:
    sight = chaos.world.sight
    sight.is_cut_off = True
    chaos.lasting(chaos.chance.uniform(30, 300), lambda: setattr(sight, "is_cut_off", False))
    return "silent"


@fault("something refuses all probes", 2)
def _all_probes_are_refused(chaos: Chaos) -> str:
    sight = chaos.world.sight
    sight.refuses_all, sight.refused_since = True, chaos.world.kernel.now
    chaos.lasting(chaos.chance.uniform(30, 300), partial(_told_the_truth, chaos))
    return "refused"


# The cloud


@fault("a cell is down", 3)
def _a_cell_is_down(chaos: Chaos) -> str:
    temper, cell = chaos.world.truth.temper, chaos.chance.randrange(CELLS)
    temper.cells_down.add(cell)
    temper.admits_gaps = chaos.chance.random() < 0.5
    chaos.lasting(chaos.chance.uniform(30, 240), lambda: temper.cells_down.discard(cell))
    return f"cell {cell}, {'told' if temper.admits_gaps else 'silent'}"


@fault("listings forget a cell", 3)
def _listings_forget(chaos: Chaos) -> str:
    temper, cell = chaos.world.truth.temper, chaos.chance.randrange(CELLS)
    temper.cells_hidden.add(cell)
    chaos.lasting(chaos.chance.uniform(20, 120), lambda: temper.cells_hidden.discard(cell))
    return f"cell {cell}"


@fault("answers of the cloud are lost", 5)
def _answers_are_lost(chaos: Chaos) -> str:
    return _temper(chaos, "loses_answers", 0.2, 0.9)


@fault("the cloud acts late", 4)
def _acts_late(chaos: Chaos) -> str:
    return _temper(chaos, "is_late", 0.2, 0.9)


@fault("the cloud refuses", 3)
def _refuses(chaos: Chaos) -> str:
    return _temper(chaos, "refuses", 0.2, 1.0)


@fault("VMs boot slowly", 2)
def _boots_slowly(chaos: Chaos) -> str:
    return _temper(chaos, "slow_boots", 0.3, 0.9)


@fault("VMs are stillborn", 2)
def _stillborn(chaos: Chaos) -> str:
    return _temper(chaos, "stillborn", 0.2, 0.8)


@fault("newborn VMs vanish", 2)
def _newborn_vanish(chaos: Chaos) -> str:
    return _temper(chaos, "vanishes", 0.3, 0.9)


@fault("the quota is used up", 2)
def _quota(chaos: Chaos) -> str:
    truth = chaos.world.truth
    truth.temper.quota = sum(1 for b in truth.bodies.values() if b.is_alive)
    chaos.lasting(chaos.chance.uniform(30, 240), lambda: setattr(truth.temper, "quota", 10_000))
    return f"{truth.temper.quota}"


@fault("a zone has no room", 3)
def _no_room(chaos: Chaos) -> str:
    short = chaos.world.truth.temper.short
    places = {(flavor, zone) for flavor in FLAVORS for zone in ZONES}
    taken = chaos.chance.sample(sorted(places), chaos.chance.randint(1, len(places)))
    short.update(taken)
    chaos.lasting(chaos.chance.uniform(30, 240), lambda: short.difference_update(taken))
    return f"{len(taken)} of {len(places)} places"


@fault("the quota of a flavor is used up", 2)
def _quota_of_a_flavor(chaos: Chaos) -> str:
    used_up, flavor = chaos.world.truth.temper.used_up, chaos.chance.choice(FLAVORS)
    used_up.add(flavor)
    chaos.lasting(chaos.chance.uniform(30, 240), lambda: used_up.discard(flavor))
    return flavor


# Presets


@fault("edit a count", 5)
def _edit_a_count(chaos: Chaos) -> str:
    preset = chaos.preset()
    count = max(1, min(8, chaos.world.ledger.count(preset) + chaos.chance.choice((-2, -1, 1, 2))))
    chaos.people.edit(preset, count=count)
    return f"{preset} to {count}"


@fault("edit a spec", 4)
def _edit_a_spec(chaos: Chaos) -> str:
    preset = chaos.preset()
    chaos.people.edit(preset, image=f"good-{chaos.chance.randint(1, 3)}")
    return f"{preset} to {chaos.people.keys(preset)['image']}"


@fault("a bad image", 1)
def _a_bad_image(chaos: Chaos) -> str:
    preset = chaos.preset()
    chaos.people.edit(preset, image=chaos.chance.choice(("bad", "none")))
    chaos.lasting(chaos.chance.uniform(60, 400), lambda: chaos.people.edit(preset, image=IMAGE))
    return f"{preset} to {chaos.people.keys(preset)['image']}"


@fault("a typing error in a count", 2)
def _a_typo(chaos: Chaos) -> str:
    preset = chaos.preset()
    ledger, people = chaos.world.ledger, chaos.people
    people.edit(preset, count=chaos.chance.choice((0, 50, 1000)), is_held_back=True)
    chaos.lasting(
        chaos.chance.uniform(60, 400),
        lambda: people.edit(preset, count=ledger.count(preset), is_held_back=True),
    )
    return f"{preset} to {chaos.people.keys(preset)['count']}"


@fault("a broken file", 2)
def _a_broken_file(chaos: Chaos) -> str:
    preset = chaos.preset()
    chaos.people.break_file(preset)
    chaos.lasting(chaos.chance.uniform(30, 300), lambda: chaos.people.save(preset))
    return preset


@fault("a preset is removed", 1)
def _a_preset_is_removed(chaos: Chaos) -> str:
    preset = chaos.preset()
    chaos.people.remove(preset)
    chaos.lasting(chaos.chance.uniform(30, 300), lambda: chaos.people.save(preset))
    return preset


@fault("a preset is removed for long", 2)
def _a_preset_is_removed_for_long(chaos: Chaos) -> str:
    preset = chaos.preset()
    if len(chaos.world.removed) >= MOST_REMOVED:
        return "none"
    chaos.people.remove(preset)
    chaos.lasting(chaos.chance.uniform(350, 1500), lambda: chaos.people.save(preset))
    return preset


@fault("the source is out of reach", 2)
def _no_source(chaos: Chaos) -> str:
    repository = chaos.world.repository
    repository.unreachable_since = repository.unreachable_since or chaos.world.kernel.now
    chaos.lasting(chaos.chance.uniform(30, 300), repository.come_back)
    return "repo"


# Operators


@fault("an operator pauses a preset", 2)
def _an_operator_pauses(chaos: Chaos) -> str:
    preset = chaos.preset()
    chaos.people.ask(
        chaos.replica().name, "PausePreset", preset=preset, actor="ann", reason="looking"
    )
    chaos.lasting(chaos.chance.uniform(30, 300), lambda: _resumed(chaos, preset))
    return preset


@fault("an operator terminates a VM", 2)
def _an_operator_terminates(chaos: Chaos) -> str:
    preset = chaos.preset()
    for body in chaos.bodies(preset)[:1]:
        chaos.people.ask(
            chaos.replica().name, "TerminateVm", preset=preset, vm_id=body.vm_id, actor="ann"
        )
        return body.vm_id
    return "none"


@fault("an operator asks for a look", 1)
def _an_operator_looks(chaos: Chaos) -> str:
    preset = chaos.preset()
    chaos.people.ask(chaos.replica().name, "ReconcilePreset", presets=[preset], actor="ann")
    return preset


@fault("an operator approves a removal", 1)
def _an_operator_approves(chaos: Chaos) -> str:
    if not chaos.world.removed:
        return "none"
    preset = chaos.chance.choice(sorted(chaos.world.removed))
    chaos.world.ledger.approved.add(preset)
    asked = {"presets": [preset], "approve_count": True, "actor": "ann"}
    chaos.people.ask(chaos.replica().name, "ReconcilePreset", **asked)
    return preset


@fault("an operator protects a VM", 2)
def _an_operator_protects(chaos: Chaos) -> str:
    preset = chaos.preset()
    for body in chaos.bodies(preset)[:1]:
        replica = chaos.replica().name
        chaos.people.protect(replica, body)
        ended = partial(chaos.people.unprotect, replica, preset, body.vm_id)
        chaos.lasting(chaos.chance.uniform(60, 600), ended)
        return body.vm_id
    return "none"


@fault("an operator forces a VM out", 1)
def _an_operator_forces(chaos: Chaos) -> str:
    preset = chaos.preset()
    for body in chaos.bodies(preset)[:1]:
        asked = {"preset": preset, "vm_id": body.vm_id, "actor": "ann", "force": True}
        chaos.people.ask(chaos.replica().name, "TerminateVm", **asked)
        return body.vm_id
    return "none"


@fault("somebody names a VM that is not the preset's", 2)
def _a_stranger(chaos: Chaos) -> str:
    truth, preset = chaos.world.truth, chaos.preset()
    others = [b for b in truth.bodies.values() if b.preset != preset and b.is_alive]
    token = max((b.token for b in truth.living(preset)), default=1)
    body = chaos.chance.choice(others)
    chaos.people.terminate_at_iaas(body, preset, token)
    return f"{body.vm_id} as one of {preset}"


def starve(chaos: Chaos, replica: Replica, seconds: float) -> None:
    """Let a replica have turns of its processor too seldom for the work that it has."""
    replica.starved_until = end = chaos.world.kernel.now + seconds

    def stop() -> None:
        if chaos.world.kernel.now < end:
            replica.pause()
            chaos.later(chaos.chance.uniform(1.5, 4.5), go_on)

    def go_on() -> None:
        replica.resume()
        chaos.later(chaos.chance.uniform(0.02, 0.3), stop)

    stop()


def cut_off(chaos: Chaos, replica: str, service: str, seconds: float) -> None:
    """Let nothing go between them, either way."""
    links, weather = {(replica, service), (service, replica)}, chaos.world.network.weather
    weather.cut |= links
    chaos.lasting(seconds, lambda: weather.cut.difference_update(links))


def _sicken(chaos: Chaos, body: Body) -> None:
    body.is_sick = True
    chaos.world.truth.feel(body)


def _cure(chaos: Chaos, bodies: list[Body]) -> None:
    for body in bodies:
        body.is_sick = False
        chaos.world.truth.feel(body)


def _told_the_truth(chaos: Chaos) -> None:
    chaos.world.sight.refuses_all = False
    chaos.world.sight.refused_until = chaos.world.kernel.now


def _started_again(chaos: Chaos, body: Body) -> None:
    if body.state is VmState.STOPPED:
        body.state, body.started_again_at = VmState.RUNNING, chaos.world.kernel.now


def _resumed(chaos: Chaos, preset: str) -> None:
    chaos.people.insist(chaos.replica().name, "ResumePreset", preset=preset, actor="ann")


def _temper(chaos: Chaos, name: str, least: float, most: float) -> str:
    temper = chaos.world.truth.temper
    setattr(temper, name, chaos.chance.uniform(least, most))
    chaos.lasting(chaos.chance.uniform(20, 150), lambda: setattr(temper, name, 0.0))
    return f"{getattr(temper, name):.2f}"
