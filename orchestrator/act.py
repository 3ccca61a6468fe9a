"""Carry out a plan: each step announced and recorded before it is sent, and told afterwards.

Creates start slowly (1, 2, 4 ...) and stop at the first chunk in which one fails; their intents are
in the store before they leave, and so is which VMs are about to go. Terminations run side by side
with creates. Nothing is sent once authority has ended, and no call may outlast it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from vmshepherd.iaas.v1 import iaas_service_pb2 as pb
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    OutcomeUnknown,
    SessionLost,
    ShepherdError,
    StaleFencingToken,
)
from vmshepherd_kit.stamps import to_timestamp_if

from .authority import Authority
from .clients.iaas import Iaas
from .clients.presets import Declared
from .config import LEAST_TIME
from .journal import Journal
from .model import Create, Fate, Memory, Outcome, Plan, PresetName, Reason, Terminate
from .narrate import announce
from .recall import doubted, sent

_REASONS = {
    Reason.DEAD: pb.MUTATION_REASON_DEAD,
    Reason.UNHEALTHY: pb.MUTATION_REASON_UNHEALTHY,
    Reason.BOOT_TIMEOUT: pb.MUTATION_REASON_BOOT_TIMEOUT,
    Reason.SURPLUS: pb.MUTATION_REASON_SURPLUS,
    Reason.TIMED_SHUTDOWN: pb.MUTATION_REASON_TIMED_SHUTDOWN,
    Reason.OPERATOR: pb.MUTATION_REASON_OPERATOR,
}

Keep = Callable[[Memory], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A plan, and all that its steps need to be carried out."""

    preset: PresetName
    declared: Declared
    provider: str
    fencing_token: int
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What acts: shared by all presets."""

    iaas: Iaas
    authority: Authority
    journal: Journal
    clock: Clock
    longest: timedelta

    def time_left(self) -> timedelta:
        """How long a mutation may last.  SessionLost when there is too little."""
        left = self.authority.remaining()
        if left < LEAST_TIME:
            raise SessionLost("the session may end before a mutation would")
        return min(left, self.longest)


async def act(order: Order, hands: Hands, keep: Keep) -> tuple[Memory, list[Outcome]]:
    """The memory with what was sent, and what became of every step."""
    memory = await _announce_ends(order, hands, keep)
    # Both are waited for, even when one of them loses authority: an outcome is never dropped.
    made, ended = await asyncio.gather(
        _create_all(memory, order, hands, keep),
        _all(_terminate(step, order, hands) for step in order.plan.terminations),
        return_exceptions=True,
    )
    if isinstance(made, BaseException):
        raise made
    if isinstance(ended, BaseException):
        raise ended
    memory, outcomes = made
    return memory, [*outcomes, *ended]


async def _announce_ends(order: Order, hands: Hands, keep: Keep) -> Memory:
    """The memory in which every VM that is about to be terminated is in doubt, in the store.

    Whoever takes over after a crash must not take another VM instead.
    """
    steps, memory = order.plan.terminations, order.plan.memory
    if not steps:
        return memory
    await hands.journal.record(
        order.preset, [announce(step) for step in steps], fencing_token=order.fencing_token
    )
    memory = doubted(memory, steps, now=hands.clock.wall())
    await keep(memory)
    return memory


async def _create_all(
    memory: Memory, order: Order, hands: Hands, keep: Keep
) -> tuple[Memory, list[Outcome]]:
    outcomes = list[Outcome]()
    for chunk in _slow_start(order.plan.creates):
        if any(each.fate is not Fate.DONE for each in outcomes):
            outcomes += [Outcome(step=step, fate=Fate.UNTRIED) for step in chunk]
            continue
        memory = sent(memory, chunk, now=hands.clock.wall())
        await hands.journal.record(
            order.preset, [announce(step) for step in chunk], fencing_token=order.fencing_token
        )
        await keep(memory)
        outcomes += await _all(_create(step, order, hands) for step in chunk)
    return memory, outcomes


async def _all(tries: Iterable[Coroutine[None, None, Outcome]]) -> list[Outcome]:
    """Every outcome; what ends authority is raised, once nothing is under way any more."""
    outcomes = list[Outcome]()
    for each in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(each, BaseException):
            raise each
        outcomes.append(each)
    return outcomes


async def _create(step: Create, order: Order, hands: Hands) -> Outcome:
    intent = step.intent
    message = pb.VmCreate(
        request_id=intent.request_id,
        preset=order.preset,
        fencing_token=order.fencing_token,
        name=intent.name,
        spec_hash=intent.spec_hash,
        spec=order.declared.vm_spec,
    )
    try:
        vm = await hands.iaas.create(order.provider, message, deadline=hands.time_left())
    except ShepherdError as e:
        return _failed(step, e)
    return Outcome(step=step, fate=Fate.DONE, vm_id=vm.vm_id)


async def _terminate(step: Terminate, order: Order, hands: Hands) -> Outcome:
    created = step.vm.created
    message = pb.VmMutation(
        vm_id=step.vm.vm_id,
        preset=order.preset,
        fencing_token=order.fencing_token,
        create_time=to_timestamp_if(created),
        reason=_REASONS[step.reason],
        evidence=step.evidence,
        force=step.force,
    )
    try:
        await hands.iaas.terminate(order.provider, message, deadline=hands.time_left())
    except ShepherdError as e:
        return _failed(step, e)
    return Outcome(step=step, fate=Fate.DONE, vm_id=step.vm.vm_id)


def _failed(step: Create | Terminate, error: ShepherdError) -> Outcome:
    if isinstance(error, SessionLost | StaleFencingToken):
        raise error
    fate = Fate.UNKNOWN if isinstance(error, OutcomeUnknown) else Fate.FAILED
    return Outcome(
        step=step,
        fate=fate,
        reason=_class_of(error),
        message=error.message,
        retry_after=error.retry_after,
    )


def _class_of(error: ShepherdError) -> str:
    """The class that patience goes by: what a person must mend is told by its code."""
    if isinstance(error, BadRequest | NotFound):
        return error.code.name
    return error.reason


def _slow_start(creates: Sequence[Create]) -> Iterator[Sequence[Create]]:
    size, at = 1, 0
    while at < len(creates):
        yield creates[at : at + size]
        at, size = at + size, size * 2
