"""A tiny model of a cloud, a prober and a holder that goes round: decide, act, recall.

Pure but for its own fields, and in virtual time. Faults are switched by setting fields. Whatever
the core decides is held against the truth, which this world knows and the core does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.decide import decide
from orchestrator.model import (
    Cloud,
    Create,
    Fate,
    Fleet,
    Memory,
    Method,
    Observation,
    Outcome,
    Placement,
    Plan,
    Probe,
    Reason,
    Removal,
    Repair,
    RequestId,
    Spec,
    Terminate,
    Verdict,
    Vm,
    VmId,
    VmState,
    Wishes,
)
from orchestrator.recall import doubted, recall, repairing, restarted, sent
from tests.support.body import DEAD, Body, Flaw
from tests.support.given import NOW, seconds
from tests.support.room import Room
from tests.support.safety import check_plan

_NO_REPAIR = "the driver answered: not now"
# Reasons for which people answer, not the limits of the preset.
_BY_PEOPLE = {Reason.OPERATOR, Reason.PRESET_REMOVED}


@dataclass
class World:
    """Truth, faults, and the holder's memory."""

    spec: Spec
    idempotent: bool = True
    methods: frozenset[Method] = frozenset()
    step: timedelta = field(default_factory=lambda: seconds(10))
    now: datetime = NOW
    memory: Memory = field(default_factory=Memory)
    wishes: Wishes = field(default_factory=Wishes)
    removal: Removal | None = None
    bodies: list[Body] = field(default_factory=list)
    boot: timedelta = field(default_factory=lambda: seconds(20))
    # How long a VM runs before it answers.
    warmup: timedelta = field(default_factory=lambda: seconds(0))
    lag: timedelta = field(default_factory=lambda: seconds(0))
    life: timedelta | None = None
    room: Room = field(default_factory=Room)
    # What is wrong with every VM that is made of a spec, by its hash; and with VMs of any spec.
    is_stillborn: bool = False
    flaws: dict[str, Flaw] = field(default_factory=dict)
    token: int = 1
    is_blind: bool = False
    blind_only: frozenset[VmId] = frozenset()
    is_prober_down: bool = False
    is_listing_whole: bool = True
    # So many VMs of other presets pass their checks; None leaves them out of account.
    elsewhere: int | None = None
    # Fates of the next steps of each kind, in order; none left means that all goes well.
    create_faults: list[str] = field(default_factory=list)
    terminate_faults: list[str] = field(default_factory=list)
    repair_faults: list[str] = field(default_factory=list)
    # "" or the point at which the holder dies in the next cycle.
    crash: str = ""
    # How far the holder's clock is behind.
    behind: timedelta = field(default_factory=lambda: seconds(0))
    late: list[tuple[datetime, Create]] = field(default_factory=list)
    ended: list[Terminate] = field(default_factory=list)
    number: int = 0

    def cycle(self) -> Plan:
        """One cycle, and then time passes."""
        self._live()
        seen = self.observe()
        plan = decide(seen)
        check_plan(seen, plan)
        self._go(plan)
        self.now += self.step
        return plan

    def cycles(self, number: int) -> Iterator[Plan]:
        for _ in range(number):
            yield self.cycle()

    @property
    def read(self) -> datetime:
        """What the holder's clock says."""
        return self.now - self.behind

    def alive(self) -> list[Body]:
        """VMs that live, and that nothing has sent away."""
        return [body for body in self.staying() if body.asked_at is None]

    def staying(self) -> list[Body]:
        """VMs that live and will live on: one whose termination is ignored is among them, one that
        is kept for study is not.
        """
        return [
            body
            for body in self.bodies
            if body.state not in DEAD
            and body.gone_from is None
            and not body.has_run_out(self.now)
            and not self.is_kept(body)
        ]

    def serving(self) -> list[Body]:
        """VMs that really serve."""
        return [body for body in self.alive() if body.serves(self.now)]

    def kept(self) -> list[Body]:
        """VMs that are kept for study."""
        return [body for body in self.bodies if self.is_kept(body)]

    def is_kept(self, body: Body) -> bool:
        memory = self.memory.vms.get(body.vm_id)
        return memory is not None and memory.kept_since is not None

    def body(self, vm_id: str) -> Body:
        return next(body for body in self.bodies if body.vm_id == vm_id)

    def kill(self, vm_id: str, state: VmState = VmState.TERMINATED) -> None:
        self.body(vm_id).state = state

    def vanish(self, vm_id: str) -> None:
        self.bodies.remove(self.body(vm_id))

    def restart(self) -> None:
        """Another holder takes over."""
        self.token += 1
        self.memory = restarted(self.memory, self.read)

    def lose_zone(self, zone: str) -> None:
        """Nothing answers in this zone, and nothing can be made there."""
        self.room.full.add(("", zone))
        for body in self.bodies:
            if body.placement.zone == zone:
                body.is_hung = True

    def regain_zone(self, zone: str) -> None:
        """What is left in this zone answers again."""
        self.room.full.discard(("", zone))
        for body in self.bodies:
            if body.placement.zone == zone:
                body.is_hung = False

    def heal(self) -> None:
        """All faults cease, and people take their hands away."""
        self.room, self.flaws = Room(), {}
        self.lag, self.boot, self.warmup = seconds(0), seconds(20), seconds(0)
        self.is_blind = self.is_prober_down = self.is_stillborn = False
        self.blind_only, self.is_listing_whole = frozenset(), True
        self.create_faults, self.terminate_faults, self.repair_faults = [], [], []
        self.life, self.crash, self.removal = None, "", None
        self.spec = replace(self.spec, managed=True)
        self.wishes = Wishes(approved_count=self.spec.count, resumes=self.wishes.resumes + 1)
        for body in self.bodies:
            body.is_protected, body.undeletable, body.hangs_from = False, "", None
            if body.state in {VmState.STOPPED, VmState.UNKNOWN, VmState.TRANSITIONING}:
                body.state, body.shutdown_at = VmState.RUNNING, None

    def observe(self) -> Observation:
        """What the holder sees now."""
        shown = [body for body in self.bodies if self._is_shown(body)]
        if not self.is_listing_whole:
            shown = shown[::2]
        return Observation(
            now=self.read,
            spec=self.spec,
            fencing_token=self.token,
            suite_id="suite",
            vms=tuple(self._vm(body) for body in shown),
            complete=self.is_listing_whole,
            incomplete_reason="" if self.is_listing_whole else "a cell is down",
            probes={body.vm_id: probe for body in shown if (probe := self._probe(body))},
            memory=self.memory,
            wishes=self.wishes,
            cloud=Cloud(
                idempotent=self.idempotent,
                horizon=seconds(0 if self.idempotent else 120),
                methods=self.methods,
            ),
            removal=self.removal,
            fleet=self._fleet(),
        )

    def _fleet(self) -> Fleet:
        """What the prober said of all presets a moment ago."""
        if self.elsewhere is None:
            return Fleet()
        failing = sum(1 for memory in self.memory.vms.values() if memory.failures)
        return Fleet(failing=failing, probed=len(self.memory.vms) + self.elsewhere)

    def _live(self) -> None:
        for due, step in list(self.late):
            if due <= self.now:
                self.late.remove((due, step))
                self._bear(step)
        self.bodies = [b for b in self.bodies if b.gone_from is None or b.gone_from > self.now]
        for body in self.bodies:
            body.live(self.now)

    def _is_shown(self, body: Body) -> bool:
        known = {*self.memory.vms, *(each.vm_id for each in self.memory.intents)}
        return body.visible_from <= self.now or body.vm_id in known

    def _vm(self, body: Body) -> Vm:
        going = body.shows_going_from is not None and body.shows_going_from <= self.now
        return Vm(
            vm_id=body.vm_id,
            name=body.vm_id,
            state=VmState.DELETING if going else body.state,
            image=body.placement.image,
            flavor=body.placement.flavor or "plain",
            zone=body.placement.zone,
            created=body.born,
            shutdown_at=body.shutdown_at,
            protected=body.is_protected,
            request_id=body.request_id,
            spec_hash=body.spec_hash,
        )

    def _probe(self, body: Body) -> Probe | None:
        if self.spec.check is None or body.state is not VmState.RUNNING:
            return None
        if self.is_prober_down:
            return Probe(Verdict.UNKNOWN, "the prober cannot probe")
        if self.is_blind or body.vm_id in self.blind_only or not body.serves(self.now):
            return Probe(Verdict.UNHEALTHY, "timed out")
        return Probe(Verdict.HEALTHY)

    # What the holder does.

    def _go(self, plan: Plan) -> None:
        before = self.memory
        self.memory = repairing(
            doubted(plan.memory, plan.terminations, now=self.read), plan.repairs, now=self.read
        )
        if self.crash == "before sending":
            self._die(sent(self.memory, plan.creates, now=self.read))
            return
        count = plan.memory.accepted_count or 0
        outcomes = self._create_all(plan.creates, count)
        outcomes += [self._terminate(step, count) for step in plan.terminations]
        outcomes += [self._repair(step) for step in plan.repairs]
        outcomes += [Outcome(step=step, fate=Fate.DONE) for step in plan.keeps]
        if self.crash == "before recall":
            self._die(self.memory if plan.steps else before)
            return
        known = replace(plan, memory=self.memory)
        self.memory = recall(known, outcomes, spec=self.spec, now=self.read)

    def _die(self, memory: Memory) -> None:
        self.crash, self.memory = "", memory
        self.restart()

    def _create_all(self, steps: Sequence[Create], count: int) -> list[Outcome]:
        """As the shell does: 1, 2, 4 ... at once, and none after a chunk in which one failed."""
        outcomes, size = list[Outcome](), 1
        while steps:
            chunk, steps, size = steps[:size], steps[size:], size * 2
            if any(each.fate is not Fate.DONE for each in outcomes):
                outcomes += [Outcome(step=step, fate=Fate.UNTRIED) for step in chunk]
                continue
            self.memory = sent(self.memory, chunk, now=self.read)
            outcomes += [self._create(step, count) for step in chunk]
        return outcomes

    def _create(self, step: Create, count: int) -> Outcome:
        fault = self.create_faults.pop(0) if self.create_faults else ""
        twin = self._twin(step.intent.request_id)
        if fault in {"THROTTLED", "UNAVAILABLE", "BAD_REQUEST"}:
            return Outcome(step=step, fate=Fate.FAILED, reason=fault, message=fault.lower())
        if fault == "request lost":
            return Outcome(step=step, fate=Fate.UNKNOWN, message=fault)
        if twin is not None:
            lost = fault in {"answer lost", "late"}
            return Outcome(step=step, fate=Fate.UNKNOWN if lost else Fate.DONE, vm_id=twin.vm_id)
        reason, words = self.room.why_not(step.intent.placement, self._taken())
        if reason:
            return Outcome(step=step, fate=Fate.FAILED, reason=reason, message=words)
        is_on_its_way = any(
            other.intent.request_id == step.intent.request_id for _, other in self.late
        )
        # A cloud that knows request ids makes one VM of two creates, however late both are.
        if not (self.idempotent and is_on_its_way):
            if fault == "late":
                self.late.append((self.now + seconds(50), step))
            else:
                self._bear(step)
        many = len(self.alive()) + len(self.late)
        limit = count + self.spec.policy.max_surge
        assert many <= limit, f"{many} VMs live or are on their way, {limit} are the limit"
        if fault or is_on_its_way:
            return Outcome(step=step, fate=Fate.UNKNOWN, message=fault)
        return Outcome(step=step, fate=Fate.DONE, vm_id=self.bodies[-1].vm_id)

    def _taken(self) -> list[Placement]:
        on_their_way = [step.intent.placement for _, step in self.late]
        return [*(body.placement for body in self.bodies), *on_their_way]

    def _twin(self, request_id: RequestId) -> Body | None:
        if not self.idempotent:
            return None
        return next((body for body in self.bodies if body.request_id == request_id), None)

    def _bear(self, step: Create) -> None:
        if self._twin(step.intent.request_id) is not None:
            return
        self.number += 1
        runs_from = self.now + self.boot
        flaw = self.flaws.get(step.intent.spec_hash, Flaw(is_stillborn=self.is_stillborn))
        self.bodies.append(
            Body(
                vm_id=VmId(f"vm-{self.number}"),
                request_id=step.intent.request_id,
                spec_hash=step.intent.spec_hash,
                placement=step.intent.placement,
                born=self.now,
                boots_until=runs_from,
                serves_from=runs_from + self.warmup,
                visible_from=self.now + self.lag,
                state=VmState.ERROR if flaw.is_stillborn else VmState.PENDING,
                is_hung=flaw.is_mute,
                hangs_from=None if flaw.fades_after is None else runs_from + flaw.fades_after,
                shutdown_at=None if self.life is None else self.now + self.life,
            )
        )

    def _repair(self, step: Repair) -> Outcome:
        fault = self.repair_faults.pop(0) if self.repair_faults else ""
        if fault in {"THROTTLED", "CONFLICT", "CLOUD_BUSY"}:
            return Outcome(step=step, fate=Fate.FAILED, reason=fault, message=_NO_REPAIR)
        if fault != "request lost":
            self.body(step.vm.vm_id).repair(step.method, self.now)
        return Outcome(step=step, fate=Fate.UNKNOWN if fault else Fate.DONE, vm_id=step.vm.vm_id)

    def _terminate(self, step: Terminate, count: int) -> Outcome:
        fault = self.terminate_faults.pop(0) if self.terminate_faults else ""
        body = self.body(step.vm.vm_id)
        if body.undeletable == "refused" or fault == "refused":
            return Outcome(step=step, fate=Fate.FAILED, reason="CONFLICT", message="cannot delete")
        if body.is_protected and not step.force:
            return Outcome(step=step, fate=Fate.FAILED, reason="PROTECTED", message="protected")
        if fault == "request lost":
            return Outcome(step=step, fate=Fate.UNKNOWN, message=fault)
        lived = body in self.staying()
        self.ended.append(step)
        body.asked_at = body.asked_at or self.now
        if body.undeletable != "ignored":
            self._send_away(body, fault)
        if lived and step.reason not in _BY_PEOPLE:
            few, floor = len(self.staying()), count - self.spec.policy.max_unavailable
            assert few >= floor, f"{few} VMs live, {floor} are the least"
        return Outcome(step=step, fate=Fate.UNKNOWN if fault else Fate.DONE, vm_id=body.vm_id)

    def _send_away(self, body: Body, fault: str) -> None:
        if body.state is VmState.TERMINATED:
            self.bodies.remove(body)
            return
        # Where the answer was lost, the listing goes on showing it for a while; not to a holder
        # that dies before it can remember its doubt.
        is_hidden = fault and not self.crash
        body.shows_going_from = self.now + (self.lag if is_hidden else seconds(0))
        body.gone_from = self.now + max(seconds(25), self.lag)
