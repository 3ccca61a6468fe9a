"""A timeline and a policy -> the story: the replayed holder goes round in the timeline's world.

Observe, `decide`, act, `recall`, as the cycle does in earnest: at the preset's interval, each
second while something is under way, every five seconds while something is missing and may not be
made. Count and spec are the timeline's; policy, check and alternatives those of a preset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ..decide import decide
from ..health import is_failing, is_watched
from ..model import (
    Fleet,
    Memory,
    Observation,
    Outcome,
    Pause,
    Plan,
    Removal,
    Spec,
    TerminationWish,
    VmId,
    VmMemory,
    VmState,
    Wishes,
)
from ..phases import Phase, failures, phase_of
from ..recall import doubted, recall, repairing, restarted, sent
from .story import Story, Teller
from .timeline import Action, Appears, Asked, ClockSet, Edit, Head, HolderLost, Record, Timeline
from .world import World

# The orchestrator's own defaults.
INTERVAL = timedelta(seconds=10)
SOON = timedelta(seconds=1)
BLOCKED_LOOK = timedelta(seconds=5)
FLEET_WINDOW = timedelta(minutes=10)


def replay(timeline: Timeline, terms: Spec, *, interval: timedelta = INTERVAL) -> Story:
    """What the policy of this spec would have done; it must not be less than a second."""
    world, teller = World(timeline), Teller()
    holder = _Holder(terms=terms, interval=interval, memory=_memory(timeline, terms))
    to_come, at = deque(timeline.records), 0.0
    while True:
        due = _due(to_come, at)
        world.advance(at, due)
        holder.hear(due, world)
        look = holder.cycle(world, teller)
        until = min(_next(at, look, to_come), timeline.head.length)
        missing = 0 if world.removed_at is not None else max(0, world.count - world.serving())
        teller.wait(until - at, missing=missing)
        if until >= timeline.head.length:
            return teller.story()
        at = until


@dataclass(slots=True, kw_only=True)
class _Holder:
    """Whoever looks after the preset, and what must not be forgotten in between."""

    terms: Spec
    interval: timedelta
    memory: Memory
    wishes: Wishes = field(default_factory=Wishes)
    token: int = 1
    behind: timedelta = timedelta(0)
    lost_until: float | None = None
    own: Fleet = field(default_factory=Fleet)

    def hear(self, records: Iterable[Record], world: World) -> None:
        """What people ask, and what befalls the holder itself."""
        for record in records:
            if isinstance(record, ClockSet):
                self.behind = timedelta(seconds=record.behind)
            elif isinstance(record, HolderLost):
                self.lost_until = record.until
            elif isinstance(record, Asked):
                self.wishes = _asked(self.wishes, record, now=self._now(world))

    def cycle(self, world: World, teller: Teller) -> timedelta:
        """One look, and when to look again."""
        if self.lost_until is not None and world.at < self.lost_until:
            teller.refuse(())
            return min(timedelta(seconds=self.lost_until - world.at), self.interval)
        if self.lost_until is not None:
            self._take_over(world)
        seen = self._observe(world)
        plan = decide(seen)
        made = [body.vm.vm_id for body in world.bodies.values() if body.is_made]
        outcomes = self._act(plan, seen, world)
        teller.tell(outcomes, at=world.at, made=made)
        teller.refuse(plan.refusals)
        return self._next_look(seen, plan, outcomes)

    def _next_look(self, seen: Observation, plan: Plan, outcomes: Sequence[Outcome]) -> timedelta:
        """As the cycle has it, so that nothing is decided sooner here than in earnest."""
        phase = phase_of(seen, plan, (*plan.refusals, *failures(outcomes)))
        if phase is Phase.BLOCKED:
            return min(BLOCKED_LOOK, self.interval)
        is_calm = plan.is_settled and phase is not Phase.CONVERGING
        return self.interval if is_calm else min(SOON, self.interval)

    def _take_over(self, world: World) -> None:
        """Another holder, who knows what was written down and watches anew."""
        self.lost_until, self.token = None, self.token + 1
        self.memory = restarted(self.memory, self._now(world))

    def _observe(self, world: World) -> Observation:
        is_removed = world.removed_at is not None
        return Observation(
            now=self._now(world),
            suite_id="backtest",
            fencing_token=self.token,
            spec=replace(
                self.terms,
                name=world.timeline.head.preset,
                count=0 if is_removed else world.count,
                spec_hash=world.spec_hash,
            ),
            vms=world.vms(),
            complete=world.listing.complete,
            incomplete_reason=world.listing.reason,
            probes={} if self.terms.check is None else world.probes(),
            memory=self.memory,
            wishes=self.wishes,
            fleet=self._fleet(world),
            cloud=world.timeline.head.cloud,
            removal=_removal(world),
        )

    def _fleet(self, world: World) -> Fleet:
        """All that the prober sees, by the last cycle; what it has cost counts while any fails."""
        failing = self.own.failing + world.others.failing
        since = self._now(world) - FLEET_WINDOW
        lost = [each for each in self.memory.deletions if each.for_health and each.at > since]
        cost = len(lost) if failing else 0
        return replace(
            self.own,
            failing=failing + cost,
            probed=self.own.probed + world.others.probed + cost,
        )

    def _act(self, plan: Plan, seen: Observation, world: World) -> list[Outcome]:
        """Carry out the steps, and remember as the shell does: before they are sent, and after."""
        memory = sent(plan.memory, plan.creates, now=seen.now)
        memory = doubted(memory, plan.terminations, now=seen.now)
        memory = repairing(memory, plan.repairs, now=seen.now)
        outcomes = [world.carry_out(step) for step in plan.steps]
        after = replace(plan, memory=memory)
        self.memory = recall(after, outcomes, spec=seen.spec, now=seen.now)
        watched = [each for each in plan.judged if is_watched(each)]
        self.own = Fleet(failing=sum(map(is_failing, watched)), probed=len(watched))
        return outcomes

    def _now(self, world: World) -> datetime:
        """What the holder's clock says."""
        return world.now() - self.behind


def _memory(timeline: Timeline, terms: Spec) -> Memory:
    """VMs that are older than the timeline have served before; they are no news to anybody."""
    older = [
        each
        for each in timeline.records
        if isinstance(each, Appears) and each.at == 0 and each.created < 0
    ]
    vms = {each.vm_id: _known(each, timeline.head, terms) for each in older}
    return Memory(accepted_count=timeline.head.count, vms=vms)


def _known(vm: Appears, head: Head, terms: Spec) -> VmMemory:
    born = head.start + timedelta(seconds=vm.created)
    runs = vm.state is VmState.RUNNING
    return VmMemory(
        first_seen=born,
        first_running=born if runs else None,
        passes=terms.check.rise if terms.check and runs else 0,
        was_healthy=runs,
        ready_since=born if runs else None,
        was_proved=runs,
        first_image=vm.image,
        first_flavor=vm.flavor,
    )


def _due(to_come: deque[Record], at: float) -> list[Record]:
    due = []
    while to_come and to_come[0].at <= at:
        due.append(to_come.popleft())
    return due


def _next(at: float, look: timedelta, to_come: Iterable[Record]) -> float:
    """When to look again: a changed preset and a person's word are acted upon at once."""
    planned = at + look.total_seconds()
    waking = (each.at for each in to_come if isinstance(each, Edit | Asked))
    return min(planned, next(waking, planned))


def _removal(world: World) -> Removal | None:
    return None if world.removed_at is None else Removal(since=world.time(world.removed_at))


def _asked(wishes: Wishes, asked: Asked, *, now: datetime) -> Wishes:
    vm_id = asked.vm_id or VmId("")
    match asked.action:
        case Action.PAUSE:
            return replace(wishes, pause=_pause(asked, now=now))
        case Action.RESUME:
            return replace(wishes, pause=None, resumes=wishes.resumes + 1)
        case Action.APPROVE:
            return replace(wishes, approved_count=asked.count)
        case Action.PROTECT:
            return replace(wishes, protections=wishes.protections | {vm_id})
        case Action.UNPROTECT:
            return replace(wishes, protections=wishes.protections - {vm_id})
        case Action.TERMINATE:
            wish = TerminationWish(
                vm_id=vm_id, actor=asked.actor, reason=asked.reason, force=asked.force
            )
            return replace(wishes, terminations=(*wishes.terminations, wish))


def _pause(asked: Asked, *, now: datetime) -> Pause:
    return Pause(
        processes=asked.processes,
        actor=asked.actor,
        reason=asked.reason,
        since=now,
        until=None if asked.until is None else now + timedelta(seconds=asked.until - asked.at),
    )
