"""What must always hold, judged from outside with the whole truth in hand.

Called by the cloud before each mutation takes effect, by the network at each delivery, and every
few seconds. A violation names the invariant of DESIGN's section 7 that was broken; nothing here
changes the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from iaas_service.domain import Order, VmState
from orchestrator.model import PresetName
from vmshepherd.iaas.v1 import iaas_service_pb2

from . import clauses, homes
from .cloud import Body
from .ledger import ECHO, FOR_EVER
from .network import Caller
from .suite import World

MAX_SURGE = 1
# So many VMs may be destroyed within a window, over all presets.
MOST_ENDS, WINDOW = 20, 600.0
GRACE = 120.0
# What the clocks of two machines may differ by within a minute or two.
TOLERANCE = 0.95
# A termination that was decided before a VM served travels for so long at most: a cycle, 90 s of
# the network, 15 s of the cloud.
NEWS = 120.0
BREAKER_COUNT, BREAKER_PERCENT = 3, 34
# So old may be what is known of VMs that were well: an interval, and the way of a request.
LOOK = 45.0
# Over all presets of one holder it opens at so many.
FLEET_COUNT = 5
# A preset that is told to be steady and is not: after this it is a lie.
LIE_AFTER = 300.0
_REASONS = {value: name[16:] for name, value in iaas_service_pb2.MutationReason.items()}
_HEALTH = {"UNHEALTHY", "BOOT_TIMEOUT"}
# Who ends a preset, or has it studied, takes VMs that serve.
_FLOORLESS = {"PRESET_REMOVED", "STUDY_OVER"}
# After this everybody has heard of a removal, cut off from the source or not.
LONG_GONE = 3 * ECHO
_PEOPLE = {"person"}


@dataclass(frozen=True)
class Violation:
    """What was broken, when, and how."""

    invariant: str
    at: float
    message: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.at:.3f} s: {self.message}"


class Judge:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._truth = world.truth
        self._ledger = world.ledger
        self.violations: list[Violation] = []
        # The newest token of a preset that the present iaas_service was shown, and since when.
        self._newest: dict[str, tuple[int, float]] = {}
        self._iaas: object = None
        self._actors: dict[tuple[str, int], object] = {}
        self._untrue_since: dict[str, float] = {}
        self._ends: list[tuple[float, object, str]] = []
        self._homes = homes.Homes(world, partial(self._broken, "I9"))
        world.truth.watch = self
        world.network.watchers.append(self.delivered)

    # At each delivery

    def delivered(self, caller: Caller) -> None:
        """A request reaches its handler."""
        life = self._world.iaas.life
        if life is not self._iaas:
            # Its memory of tokens is in its process: a new life learns from VMs and callers.
            self._iaas, self._newest = life, {}
        if caller.method == "ListVms":
            self._shown((held.preset, held.fencing_token) for held in caller.request.held)
        elif caller.method == "CreateVms":
            for each in caller.request.creates:
                self._asks_for(each, caller)
                self._ledger.sent[each.preset] = self._world.kernel.now
        else:
            for each in caller.mutations:
                self._asks_for(each, caller)

    def _asks_for(self, step: Any, caller: Caller) -> None:
        """Somebody wants to act on a preset, whether he may or not."""
        preset, token = str(step.preset), int(step.fencing_token)
        self._shown([(preset, token)])
        self._given_back(preset, token, caller)

    def _given_back(self, preset: str, token: int, caller: Caller) -> None:
        """I1: whoever gives a lock back has nothing under way for which he waits."""
        now, freed = self._world.kernel.now, self._ledger.freed.get((preset, token), FOR_EVER)
        is_awaited = caller.left is not None and now < caller.sent + caller.left * TOLERANCE
        is_late = freed < caller.sent or (freed < now and is_awaited)
        if is_late and caller.process not in _PEOPLE:
            many = f"{now - freed:.1f} s after it was given back"
            self._broken("I1", f"{preset}: {caller.process} uses token {token} {many}")

    def _shown(self, tokens: Any) -> None:
        for preset, token in tokens:
            if token > self._newest.get(preset, (0, 0.0))[0]:
                self._newest[preset] = (token, self._world.kernel.now)

    # At each mutation

    def asked(self, caller: Caller | None, preset: str, token: int) -> None:
        """iaas_service hands a mutation to the cloud."""
        newest, since = self._newest.get(preset, (0, 0.0))
        if token < newest and since < self._world.kernel.now:
            self._broken("I1", f"{preset}: token {token} acts though {newest} was shown before")
        if caller is None or caller.process in _PEOPLE:
            return
        self._given_back(preset, token, caller)
        if not self._is_old_news(self._world.lost_writes_at):
            # A grant that was lost is given again, to another: the same token, and no news.
            self._actors[preset, token] = caller.host
            return
        actor = self._actors.setdefault((preset, token), caller.host)
        if actor is not caller.host:
            self._broken("I1", f"{preset}: two replicas act under token {token}")
        granted, at = self._ledger.grants.get(preset, (0, 0.0))
        if token < granted and at < caller.sent:
            many = f"{caller.sent - at:.1f} s after {granted} was granted"
            self._broken("I1", f"{preset}: {caller.process} acts under token {token}, {many}")

    def creating(self, order: Order, caller: Caller | None) -> None:
        """A VM comes into being."""
        preset, request_id = order.marker.preset, order.marker.request_id
        living = self._counting(preset)
        if any(body.request_id == request_id for body in living):
            self._broken("I3", f"{preset}: a second VM lives under request {request_id[:8]}")
        limit = self._ledger.most(preset) + MAX_SURGE
        if len(living) + 1 > limit and not self._ledger.is_excused(preset):
            self._broken("I2", f"{preset}: {len(living) + 1} VMs live, {limit} are the most")
        if preset in self._world.removed and self._ledger.gone_for(preset) > LONG_GONE:
            self._broken("I4", f"{preset} was removed long ago, and a VM is made for it")

    def repairing(self, body: Body, caller: Caller | None) -> None:
        """A VM is rebooted or rebuilt by us."""
        preset = self._preset(body, caller)
        if body.is_foreign or preset != body.preset:
            self._broken("I4", f"{body.vm_id} ({body.name}) is not {preset}'s and is repaired")
            return
        if body.vm_id not in self._ledger.repairs:
            self._broken("I5", f"{body.vm_id} of {preset} is repaired, and no event said why")
        if self._is_protected(body):
            self._broken("I4", f"{body.vm_id} of {preset} is protected and repaired")
        self._for_health(body, "UNHEALTHY", caller)

    def _counting(self, preset: str) -> list[Body]:
        """Living VMs but those that are kept for study."""
        return [b for b in self._truth.living(preset) if b.vm_id not in self._ledger.kept]

    def _is_protected(self, body: Body) -> bool:
        """Whether a person has protected it, and everybody must know."""
        return bool(
            (body.metadata.get("vmshepherd_protected") and self._is_old_news(body.protected_at))
            or (self._is_old_news(body.guarded_at) and not self._is_forgotten(body.guarded_at))
        )

    def _is_forgotten(self, at: float | None) -> bool:
        """Whether a store that failed over may have lost what was recorded then."""
        lost = self._world.lost_writes_at
        return at is not None and at <= lost < at + ECHO

    def terminating(self, body: Body, caller: Caller | None) -> None:
        """A VM is destroyed by us."""
        if body.is_foreign or not body.preset:
            self._broken("I4", f"{body.vm_id} ({body.name}) is not ours and is destroyed")
            return
        reason, preset = self._reason(body, caller), self._preset(body, caller)
        if preset != body.preset:
            self._broken("I4", f"{body.vm_id} of {body.preset} is destroyed as one of {preset}")
        if body.vm_id not in self._ledger.announced and not self._is_person(caller):
            self._broken("I5", f"{body.vm_id} of {preset} is destroyed, and no event said why")
        if not body.is_alive:
            return
        if self._is_protected(body) and not self._is_forced(body, caller):
            self._broken("I4", f"{body.vm_id} of {preset} is protected and destroyed: {reason}")
        if reason == "OPERATOR":
            return
        if untrue := clauses.untruth(self._world, body, reason):
            self._broken("I4", f"{body.vm_id} of {preset} is destroyed ({reason}): {untrue}")
        self._budget(body, caller)
        self._floor(body, reason)
        if reason in _HEALTH:
            self._for_health(body, reason, caller)

    def _for_health(self, body: Body, reason: str, caller: Caller | None) -> None:
        now = self._world.kernel.now
        is_well = body.well_since is not None and now - body.well_since > ECHO
        if is_well and not self._is_slandered(body, caller):
            self._broken("I4", f"{body.vm_id} of {body.preset} is well and destroyed: {reason}")
        if reason != "UNHEALTHY":
            return
        since = body.running_since
        is_new = since is not None and now - since < GRACE * TOLERANCE
        if not body.was_well and is_new and not self._is_forgotten(body.mended_at):
            self._broken("I4", f"{body.vm_id} of {body.preset} is destroyed in its grace")
        self._breaker(body)

    def _is_slandered(self, body: Body, caller: Caller | None) -> bool:
        """Whether something tells loud lies of all VMs to a holder who sees too few of them.

        Both breakers have a floor: below it a liar who is not silent is believed, one VM at a time.
        And as long as the others were found well at the last look, before the lie began.
        """
        sight, now = self._world.sight, self._world.kernel.now
        if caller is None or not (sight.refuses_all or now - sight.refused_until < ECHO):
            return False
        few = len(self._counting(body.preset)) < BREAKER_COUNT
        return few and self._seen_by_all() < FLEET_COUNT

    def _seen_by_all(self) -> int:
        """How many VMs the presets have that somebody holds."""
        return sum(len(self._counting(preset)) for preset in homes.holders(self._world))

    def _breaker(self, body: Body) -> None:
        """I6: with so many failing for so long, nobody may be destroyed for health.

        A clock that was set under its holder begins every timer anew, a grace included: who was
        never seen to serve does not count as failing for as long.
        """
        if self._world.kernel.now - self._world.clock_set_at < GRACE + ECHO:
            return
        running = [b for b in self._counting(body.preset) if b.state is VmState.RUNNING]
        since = self._world.kernel.now - ECHO
        failing = [b for b in running if b.fails_since is not None and b.fails_since < since]
        share = 100 * len(failing) >= BREAKER_PERCENT * len(running)
        if len(failing) >= BREAKER_COUNT and share:
            many = f"{len(failing)} of {len(running)}"
            self._broken("I6", f"{body.vm_id} of {body.preset} is destroyed while {many} fail")

    def _floor(self, body: Body, reason: str) -> None:
        """I2: so many go on serving, but for those whom others have ended or made fail.

        What died a while ago may not be known to whoever decided, and nor may a VM that fails, or
        one that has only begun to serve.
        """
        now, since = self._world.kernel.now, body.well_since
        if since is None or now - since < NEWS or body.state is not VmState.RUNNING:
            return
        if reason in _FLOORLESS or body.vm_id in self._ledger.kept:
            return
        preset = body.preset
        mates = [b for b in self._truth.bodies.values() if b.preset == preset]
        stay = len(self._truth.serving(preset)) - 1
        excused = sum(1 for b in mates if b.died_since(now - ECHO) or b.is_hurt or b.is_repaired)
        least = min(self._ledger.least(preset), self._ledger.count(preset))
        least -= self._ledger.unavailable(preset)
        if stay + excused < least:
            self._broken(
                "I2",
                f"{preset}: {body.vm_id} is destroyed ({reason}), {stay} serve, {least} must",
            )

    def _budget(self, body: Body, caller: Caller | None) -> None:
        """I2: so many within a window, and a tenth of a preset (or one VM) with one call."""
        now = self._world.kernel.now
        life = self._world.iaas.life
        self._ends = [each for each in self._ends if each[0] > now - WINDOW]
        self._ends.append((now, life, body.vm_id))
        ours = {vm_id for _, in_life, vm_id in self._ends if in_life is life}
        if len(ours) > MOST_ENDS:
            self._broken("I2", f"{len(ours)} VMs were destroyed within ten minutes")
        if caller is None:
            return
        together = [m for m in caller.mutations if self._costs(m, body.preset)]
        most = max(1, max(self._ledger.most(body.preset) + MAX_SURGE, 10) // 10)
        if len(together) > most:
            self._broken("I2", f"{body.preset}: {len(together)} VMs are destroyed with one call")

    def _costs(self, mutation: Any, preset: str) -> bool:
        reason = _REASONS.get(mutation.reason, "")
        return mutation.preset == preset and reason not in {"OPERATOR", "DEAD"}

    def _reason(self, body: Body, caller: Caller | None) -> str:
        mutation = self._mutation(body, caller)
        return _REASONS.get(mutation.reason, "") if mutation else ""

    def _preset(self, body: Body, caller: Caller | None) -> str:
        mutation = self._mutation(body, caller)
        return str(mutation.preset) if mutation else body.preset

    def _mutation(self, body: Body, caller: Caller | None) -> Any:
        return caller.mutation(body.vm_id) if caller else None

    def _is_forced(self, body: Body, caller: Caller | None) -> bool:
        mutation = self._mutation(body, caller)
        return bool(mutation and mutation.force)

    def _is_person(self, caller: Caller | None) -> bool:
        return caller is not None and caller.process in _PEOPLE

    def _is_old_news(self, at: float | None) -> bool:
        return at is not None and self._world.kernel.now - at > ECHO

    # Every few seconds

    def look(self) -> None:
        """What can be seen of the replicas from outside."""
        for error in self._world.kernel.errors:
            self._broken("BUG", error)
        self._world.kernel.errors.clear()
        self._one_holder()
        self._truthful()
        self._homes.look()

    def _one_holder(self) -> None:
        """I1: of the replicas that believe in their lock, at most one a preset."""
        for held, names in homes.holders(self._world).items():
            if len(names) > 1 and self._world.kernel.now > self._world.lost_writes_at + ECHO:
                self._broken("I1", f"{held} is held by {' and '.join(names)}")

    def _truthful(self) -> None:
        """I7: who does less than is declared says why."""
        now = self._world.kernel.now
        for replica in self._world.replicas:
            parts = replica.parts
            if not replica.is_up or parts is None or replica.is_paused:
                continue
            for preset in parts.cycles.presets.names():
                shown = parts.cycles.board.get(preset)
                key = f"{replica.name} {preset}"
                if shown is None or not self._is_lie(preset, shown):
                    self._untrue_since.pop(key, None)
                elif now - self._untrue_since.setdefault(key, now) > LIE_AFTER:
                    self._broken("I7", f"{key} is {shown.phase.name}, and nobody says why not more")

    def _is_lie(self, preset: str, shown: Any) -> bool:
        phase = shown.phase.name
        if self._world.repository.is_unreachable:
            # What is declared is not known to anybody but us.
            return False
        if preset not in self._ledger.counts or phase in {"ELSEWHERE", "REMOVED", "UNMANAGED"}:
            return False
        if phase in {"PAUSED", "BLOCKED"}:
            return not shown.conditions and shown.pause is None
        if phase == "STEADY":
            many = {len(self._truth.living(preset)), len(self._counting(preset))}
            return self._ledger.count(preset) not in many
        return False

    # At the end

    def converged(self) -> list[str]:
        """What is not as declared, long after the last fault."""
        wrong = []
        for preset in self._ledger.counts:
            count = self._ledger.count(preset)
            living, serving = self._truth.living(preset), self._truth.serving(preset)
            if preset in self._world.removed:
                continue
            if len(living) != count or len(serving) != count:
                many = f"{len(serving)} serve, {len(living)} live, {count} declared"
                wrong.append(f"{preset}: {many}; {self._told(preset)}")
        return wrong + self._homes.wrong()

    def is_steady(self) -> bool:
        """Whether every preset is held by somebody who wants nothing more."""
        steady = set()
        for replica in self._world.replicas:
            for preset in self._ledger.counts:
                shown = replica.parts and replica.parts.cycles.board.get(PresetName(preset))
                if shown and shown.phase.name == "STEADY":
                    steady.add(preset)
        return steady == set(self._ledger.counts)

    def _told(self, preset: str) -> str:
        """What the replica that holds a preset says of it."""
        for replica in self._world.replicas:
            shown = replica.parts and replica.parts.cycles.board.get(PresetName(preset))
            if shown and shown.fencing_token is not None:
                said = "; ".join(f"{each.code}: {each.message}" for each in shown.conditions)
                return f"{replica.name} says {shown.phase.name}: {said}"
        return "nobody holds it"

    def failed(self, invariant: str, message: str) -> None:
        """Note what the run itself found."""
        self._broken(invariant, message)

    def _broken(self, invariant: str, message: str) -> None:
        violation = Violation(invariant, self._world.kernel.now, message)
        self._world.trace.add(self._world.kernel.now, f"VIOLATION {invariant}: {message}")
        self.violations.append(violation)
