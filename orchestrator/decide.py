"""Pure: what a preset needs next. No clock, no I/O, no randomness: one observation in, one plan
out.

The rules stand in the order in which they apply, each in its own file: judge every VM (`health`,
`drift`), withhold health when too much fails (`breaker`) or nothing healthier comes after it
(`suspension`), guard the count (`guard`), count who lives and who leaves (`stock`: `leaving`,
`rollout`), repair in place (`repair`), make what is missing (`make`: `placement`, `backoff`),
remove what is dead, replaced or too much (`remove`: `ranking`, `surplus`, `keeping`, `budget`). A
preset that is declared no more has an end of its own (`tombstone`). Whatever is refused or
postponed says why, and `clauses` says which words of the preset decided. Replacements come first
and must be ready before what they replace is destroyed, so a blind prober or a bad image costs one
VM too many, never one too few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from . import breaker, budget, guard, health, intents, placement, rollout, skew, suspension
from .backoff import boot_failures, counted, early_failure, settle
from .make import make
from .model import (
    Judged,
    Memory,
    Observation,
    Plan,
    Refusal,
    Removal,
    Terminate,
    VmId,
    VmMemory,
    VmStatus,
)
from .remove import remove, wished
from .repair import repair
from .stock import Stock, count_alive, group, take_stock
from .tombstone import wind_down


@dataclass(frozen=True, slots=True)
class _Judgement:
    """All VMs judged, what is remembered of them, and what is withheld."""

    judged: tuple[Judged, ...]
    memory: Memory
    notes: tuple[Refusal, ...]


def decide(seen: Observation) -> Plan:
    """What this preset needs next."""
    seen = _prepared(seen)
    found = _judge(seen)
    blocked = _why_not(seen)
    if blocked:
        return Plan(
            refusals=(*found.notes, *blocked),
            judged=found.judged,
            memory=found.memory,
            is_settled=seen.complete,
        )
    if seen.removal is not None:
        return _end(seen, found, seen.removal)
    if seen.moves_to:
        return _stay(seen, found)
    count, held_back = guard.accept_count(
        seen.spec, found.memory, seen.wishes, alive=count_alive(found.judged)
    )
    return _keep(take_stock(found.judged, found.memory, seen, count=count), found, held_back)


def _keep(stock: Stock, found: _Judgement, held_back: tuple[Refusal, ...]) -> Plan:
    """The plan for a preset that is declared."""
    creates, create_notes = make(stock)
    removals, removal_notes = remove(stock)
    repairs, repair_notes = repair(stock, going={step.vm.vm_id for step in removals})
    standing = group(stock)
    is_spent = any(each.code == "BUDGET_SPENT" for each in removal_notes)
    is_waiting = is_spent or bool(rollout.awaited(standing))
    fresh = [step.intent for step in creates if step.intent not in stock.open_intents]
    steps = (*creates, *repairs, *removals)
    return Plan(
        steps=steps,
        refusals=(
            *found.notes,
            *held_back,
            *_turnover_notes(stock, standing),
            *repair_notes,
            *create_notes,
            *removal_notes,
        ),
        judged=stock.judged,
        memory=replace(
            stock.memory,
            intents=(*stock.open_intents, *fresh),
            next_slot=intents.slot_after(fresh, stock.seen),
            accepted_count=stock.count,
        ),
        is_settled=stock.is_calm and not (steps or repair_notes or is_waiting),
    )


def _turnover_notes(stock: Stock, standing: rollout.Group) -> tuple[Refusal, ...]:
    """What people should know of VMs that are outdated or too old."""
    held_up = (stock.paused(process, what) for process, what in rollout.held_up(standing))
    return (*rollout.notes(standing), *held_up)


def _end(seen: Observation, found: _Judgement, removal: Removal) -> Plan:
    """The plan for a preset that is declared no more."""
    stock = take_stock(found.judged, found.memory, seen, count=0)
    ends, notes = wind_down(stock, removal)
    steps = {step.vm.vm_id: step for step in (*ends, *wished(stock))}
    return _without_creates(stock, found, steps.values(), notes)


def _stay(seen: Observation, found: _Judgement) -> Plan:
    """The plan for a preset whose VMs run elsewhere than is declared: only what people ask for."""
    stock = take_stock(found.judged, found.memory, seen, count=seen.spec.count)
    message = (
        f"it is declared for provider {seen.moves_to!r} now, and its VMs run at the former one: "
        "nothing is made or destroyed. Put the former one back, or use another name for the "
        "preset, or have them terminated: vmshepherd vm terminate VM"
    )
    return _without_creates(stock, found, wished(stock), [Refusal("PROVIDER_CHANGED", message)])


def _without_creates(
    stock: Stock, found: _Judgement, ends: Iterable[Terminate], notes: Iterable[Refusal]
) -> Plan:
    """The plan for a preset of which VMs only go."""
    steps = tuple(ends)
    return Plan(
        steps=steps,
        refusals=(*found.notes, *notes),
        judged=found.judged,
        memory=replace(found.memory, intents=stock.open_intents),
        is_settled=not steps,
    )


def _prepared(seen: Observation) -> Observation:
    """The observation with times that make sense, what people protect, and what they resumed."""
    memory = skew.not_after(seen.memory, seen.now, seen.spec.policy)
    if seen.wishes.resumes != memory.resumes_seen:
        memory = suspension.resumed(memory, seen.wishes)
    memory = replace(
        memory,
        deletions=budget.remembered(memory, seen.spec.policy, seen.now),
        shortages=placement.still_meant(memory, seen.spec),
    )
    protected = seen.wishes.protections
    vms = seen.vms
    if protected:
        vms = tuple(replace(vm, protected=True) if vm.vm_id in protected else vm for vm in vms)
    return replace(seen, memory=memory, vms=vms)


def _why_not(seen: Observation) -> tuple[Refusal, ...]:
    """What forbids every step."""
    if not seen.spec.managed:
        return (Refusal("UNMANAGED", "the preset says `unmanaged: true`"),)
    if not seen.complete:
        why = f"the listing is not whole, nothing is made or destroyed: {seen.incomplete_reason}"
        return (Refusal("LISTING_INCOMPLETE", why),)
    return ()


def _judge(seen: Observation) -> _Judgement:
    """Every VM judged, with breaker, patience and suspension applied."""
    judged = health.judge_all(seen)
    lost = budget.lost_to_health(seen)
    why = ""
    if seen.spec.check:
        why = breaker.why_open(judged, seen.spec.policy, seen.fleet, lost=lost)
    since = seen.memory.breaker_since
    if since is not None and not why:
        judged = health.judge_all(_thawed(seen))
    believed = [each for each in judged if not (why and each.status is VmStatus.UNHEALTHY)]
    backoff = boot_failures(believed, settle(judged, seen.memory.backoff, seen), seen)
    failure = early_failure(believed, seen)
    told = {each.vm.vm_id: counted(each, seen) for each in believed}
    judged = tuple(told.get(each.vm.vm_id, each) for each in judged)
    memory = replace(
        seen.memory,
        backoff=backoff,
        breaker_since=(since or seen.now) if why else None,
        suspended_since=suspension.since_when(seen.memory.suspended_since, backoff, seen),
        rollout=rollout.follow(judged, seen.memory, seen, early_failure=failure),
        vms=_remembered(judged, seen),
    )
    notes = suspension.notes(memory, seen.spec)
    if why:
        notes = (Refusal("BREAKER_OPEN", f"nothing is destroyed for its health: {why}"), *notes)
    return _Judgement(judged, memory, notes)


def _thawed(seen: Observation) -> Observation:
    """The same observation with every health timer started anew."""
    vms = {vm_id: health.forget_failures(vm) for vm_id, vm in seen.memory.vms.items()}
    return replace(seen, memory=replace(seen.memory, vms=vms))


def _remembered(judged: Sequence[Judged], seen: Observation) -> Mapping[VmId, VmMemory]:
    """What is remembered of VMs; an incomplete listing forgets none: absence proves nothing."""
    fresh = {each.vm.vm_id: each.memory for each in judged}
    return fresh if seen.complete else {**seen.memory.vms, **fresh}
