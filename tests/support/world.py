"""A tiny model of a cloud, a prober and a holder that goes round: decide, act, recall.

Pure but for its own fields, and in virtual time. Faults are switched by setting fields. Whatever
the core decides is held against the truth, which this world knows and the core does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.decide import decide
from orchestrator.model import (
    Cloud,
    Create,
    Fate,
    Memory,
    Observation,
    Outcome,
    Plan,
    Probe,
    Reason,
    RequestId,
    Spec,
    Terminate,
    Verdict,
    Vm,
    VmId,
    VmState,
    Wishes,
)
from orchestrator.recall import recall, restarted, sent
from tests.support.given import NOW, seconds
from tests.support.safety import check_plan

_DEAD = {VmState.TERMINATED, VmState.ERROR}


@dataclass
class Body:
    """A VM as it really is."""

    vm_id: VmId
    request_id: RequestId
    spec_hash: str
    born: datetime
    boots_until: datetime
    visible_from: datetime
    state: VmState = VmState.PENDING
    is_hung: bool = False
    is_protected: bool = False
    shutdown_at: datetime | None = None
    was_healthy: bool = False
    # "refused" by the cloud, or "ignored" after it was accepted.
    undeletable: str = ""
    asked_at: datetime | None = None
    gone_from: datetime | None = None
    shows_going_from: datetime | None = None


@dataclass
class World:
    """Truth, faults, and the holder's memory."""

    spec: Spec
    idempotent: bool = True
    step: timedelta = field(default_factory=lambda: seconds(10))
    now: datetime = NOW
    memory: Memory = field(default_factory=Memory)
    wishes: Wishes = field(default_factory=Wishes)
    bodies: list[Body] = field(default_factory=list)
    boot: timedelta = field(default_factory=lambda: seconds(20))
    lag: timedelta = field(default_factory=lambda: seconds(0))
    life: timedelta | None = None
    quota: int = 1000
    token: int = 1
    is_blind: bool = False
    blind_only: frozenset[VmId] = frozenset()
    is_prober_down: bool = False
    is_listing_whole: bool = True
    is_stillborn: bool = False
    # Fates of the next creates and terminations, in order; none left means that all goes well.
    create_faults: list[str] = field(default_factory=list)
    terminate_faults: list[str] = field(default_factory=list)
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
        """VMs that live and will live on: one whose termination is ignored is among them."""
        return [
            body
            for body in self.bodies
            if body.state not in _DEAD and body.gone_from is None and not self._has_run_out(body)
        ]

    def serving(self) -> list[Body]:
        """VMs that really serve."""
        return [b for b in self.alive() if b.state is VmState.RUNNING and not b.is_hung]

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

    def heal(self) -> None:
        """All faults cease, and people take their hands away."""
        self.quota, self.lag, self.boot = 1000, seconds(0), seconds(20)
        self.is_blind = self.is_prober_down = self.is_stillborn = False
        self.blind_only, self.is_listing_whole = frozenset(), True
        self.create_faults, self.terminate_faults, self.crash = [], [], ""
        self.life = None
        self.wishes = Wishes(approved_count=self.spec.count)
        for body in self.bodies:
            body.is_protected, body.undeletable = False, ""
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
            cloud=Cloud(idempotent=self.idempotent, horizon=seconds(0 if self.idempotent else 120)),
        )

    def _live(self) -> None:
        for due, step in list(self.late):
            if due <= self.now:
                self.late.remove((due, step))
                self._bear(step)
        self.bodies = [b for b in self.bodies if b.gone_from is None or b.gone_from > self.now]
        for body in self.bodies:
            if body.state is VmState.PENDING and body.boots_until <= self.now:
                body.state = VmState.RUNNING

    def _is_shown(self, body: Body) -> bool:
        known = {*self.memory.vms, *(each.vm_id for each in self.memory.intents)}
        return body.visible_from <= self.now or body.vm_id in known

    def _has_run_out(self, body: Body) -> bool:
        end = body.shutdown_at
        return body.state is VmState.STOPPED and end is not None and end <= self.now

    def _vm(self, body: Body) -> Vm:
        going = body.shows_going_from is not None and body.shows_going_from <= self.now
        return Vm(
            vm_id=body.vm_id,
            name=body.vm_id,
            state=VmState.DELETING if going else body.state,
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
        if body.is_hung or self.is_blind or body.vm_id in self.blind_only:
            return Probe(Verdict.UNHEALTHY, "timed out")
        body.was_healthy = True
        return Probe(Verdict.HEALTHY)

    def _go(self, plan: Plan) -> None:
        memory = sent(plan.memory, plan.creates, now=self.read)
        if self.crash == "before sending":
            self._die(memory)
            return
        if plan.creates:
            self.memory = memory
        count = plan.memory.accepted_count
        outcomes = [self._create(step, count or 0) for step in plan.creates]
        outcomes += [self._terminate(step, count or 0) for step in plan.terminations]
        if self.crash == "before recall":
            self._die(self.memory)
            return
        self.memory = recall(replace(plan, memory=memory), outcomes, spec=self.spec, now=self.read)

    def _die(self, memory: Memory) -> None:
        self.crash, self.memory = "", memory
        self.restart()

    def _create(self, step: Create, count: int) -> Outcome:
        fault = self.create_faults.pop(0) if self.create_faults else ""
        twin = self._twin(step.intent.request_id)
        if fault in {"THROTTLED", "UNAVAILABLE", "INVALID_ARGUMENT"}:
            return Outcome(step=step, fate=Fate.FAILED, reason=fault, message=fault.lower())
        if fault == "request lost":
            return Outcome(step=step, fate=Fate.UNKNOWN, message=fault)
        if twin is not None:
            lost = fault in {"answer lost", "late"}
            return Outcome(step=step, fate=Fate.UNKNOWN if lost else Fate.DONE, vm_id=twin.vm_id)
        if len(self.bodies) + len(self.late) >= self.quota:
            words = f"quota of {self.quota} VMs is used up"
            return Outcome(step=step, fate=Fate.FAILED, reason="QUOTA_EXCEEDED", message=words)
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

    def _twin(self, request_id: RequestId) -> Body | None:
        if not self.idempotent:
            return None
        return next((body for body in self.bodies if body.request_id == request_id), None)

    def _bear(self, step: Create) -> None:
        if self._twin(step.intent.request_id) is not None:
            return
        self.number += 1
        state = VmState.ERROR if self.is_stillborn else VmState.PENDING
        self.bodies.append(
            Body(
                vm_id=VmId(f"vm-{self.number}"),
                request_id=step.intent.request_id,
                spec_hash=step.intent.spec_hash,
                born=self.now,
                boots_until=self.now + self.boot,
                visible_from=self.now + self.lag,
                state=state,
                shutdown_at=None if self.life is None else self.now + self.life,
            )
        )

    def _terminate(self, step: Terminate, count: int) -> Outcome:
        fault = self.terminate_faults.pop(0) if self.terminate_faults else ""
        body = self.body(step.vm.vm_id)
        if body.undeletable == "refused" or fault == "refused":
            return Outcome(step=step, fate=Fate.FAILED, reason="CONFLICT", message="cannot delete")
        if fault == "request lost":
            return Outcome(step=step, fate=Fate.UNKNOWN, message=fault)
        lived = body in self.staying()
        self.ended.append(step)
        body.asked_at = body.asked_at or self.now
        if body.undeletable != "ignored":
            self._send_away(body, fault)
        if lived and step.reason is not Reason.OPERATOR:
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
