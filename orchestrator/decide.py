"""Pure: what a preset needs next. No clock, no I/O, no randomness: one observation in, one plan
out.

The rules stand in the order in which they apply, each in its own file: judge every VM (`health`),
withhold health when too much fails (`breaker`), guard the count (`guard`), count who lives and who
leaves (`stock`), make what is missing (`make`), remove what is dead, replaced or too much
(`remove`). Whatever is refused or postponed says why. Replacements come first and must be ready
before what they replace is destroyed, so a blind prober or a bad image costs one VM too many,
never one too few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from . import breaker, guard, health, skew
from .backoff import boot_failures, counted, settle
from .make import make
from .model import Judged, Memory, Observation, Plan, Refusal, VmId, VmMemory
from .remove import remove
from .stock import count_alive, take_stock


def decide(seen: Observation) -> Plan:
    """What this preset needs next."""
    seen = replace(seen, memory=skew.not_after(seen.memory, seen.now))
    judged, memory, notes = _judge(seen)
    blocked = _why_not(seen)
    if blocked:
        return Plan(
            refusals=(*notes, *blocked), judged=judged, memory=memory, is_settled=seen.complete
        )
    count, held_back = guard.accept_count(seen.spec, memory, seen.wishes, alive=count_alive(judged))
    stock = take_stock(judged, memory, seen, count=count)
    creates, create_notes = make(stock)
    terminations, terminate_notes = remove(stock)
    fresh = [step.intent for step in creates if step.intent not in stock.open_intents]
    return Plan(
        steps=(*creates, *terminations),
        refusals=(*notes, *held_back, *create_notes, *terminate_notes),
        judged=judged,
        memory=replace(
            memory,
            intents=(*stock.open_intents, *fresh),
            next_slot=memory.next_slot + len(fresh),
            accepted_count=count,
        ),
        is_settled=stock.is_calm and not creates and not terminations,
    )


def _why_not(seen: Observation) -> tuple[Refusal, ...]:
    """What forbids every step."""
    if not seen.spec.managed:
        return (Refusal("UNMANAGED", "the preset says `unmanaged: true`"),)
    if not seen.complete:
        why = f"the listing is not whole, nothing is made or destroyed: {seen.incomplete_reason}"
        return (Refusal("LISTING_INCOMPLETE", why),)
    return ()


def _judge(seen: Observation) -> tuple[tuple[Judged, ...], Memory, tuple[Refusal, ...]]:
    """Every VM judged, with the breaker applied to the health timers."""
    judged = health.judge_all(seen)
    why = breaker.why_open(judged, seen.spec.policy, seen.fleet) if seen.spec.check else ""
    since = seen.memory.breaker_since
    if since is not None and not why:
        judged = health.judge_all(_thawed(seen))
    backoff = boot_failures(judged, settle(judged, seen.memory.backoff, seen), seen)
    judged = tuple(counted(each, seen) for each in judged)
    memory = replace(
        seen.memory,
        backoff=backoff,
        breaker_since=(since or seen.now) if why else None,
        vms=_remembered(judged, seen),
    )
    if not why:
        return judged, memory, ()
    return judged, memory, (Refusal("BREAKER_OPEN", f"nothing is destroyed for its health: {why}"),)


def _thawed(seen: Observation) -> Observation:
    """The same observation with every health timer started anew."""
    vms = {vm_id: health.forget_failures(vm) for vm_id, vm in seen.memory.vms.items()}
    return replace(seen, memory=replace(seen.memory, vms=vms))


def _remembered(judged: Sequence[Judged], seen: Observation) -> Mapping[VmId, VmMemory]:
    """What is remembered of VMs; an incomplete listing forgets none: absence proves nothing."""
    fresh = {each.vm.vm_id: each.memory for each in judged}
    return fresh if seen.complete else {**seen.memory.vms, **fresh}
