"""Carry out a plan: each step announced and recorded before it is sent, and told afterwards.

Creates start slowly (1, 2, 4 ...) and stop at the first chunk in which one fails; their intents are
in the store before they leave, and so is which VMs are about to go or to be repaired. Those run
side by side with creates. Nothing is sent once authority has ended, and no call may outlast it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TypeVar

from .hands import Hands, Order
from .model import Create, Fate, Memory, Outcome
from .narrate import announce
from .recall import doubted, repairing, sent
from .witness import Touched, known_of

Store = Callable[[Memory], Awaitable[None]]
Result = TypeVar("Result")


async def act(order: Order, hands: Hands, store: Store) -> tuple[Memory, list[Outcome]]:
    """The memory with what was sent, and what became of every step."""
    plan = order.plan
    memory = await _announce(order, hands, store)
    # All are waited for, even when one of them loses authority: an outcome is never dropped.
    made, ended, repaired = await asyncio.gather(
        _create_all(memory, order, hands, store),
        _all(hands.terminate(step, order) for step in plan.terminations),
        _all(hands.repair(step, order) for step in plan.repairs),
        return_exceptions=True,
    )
    memory, outcomes = _known(made)
    kept = [Outcome(step=step, fate=Fate.DONE, vm_id=step.vm.vm_id) for step in plan.keeps]
    return memory, [*outcomes, *_known(ended), *_known(repaired), *kept]


async def _announce(order: Order, hands: Hands, store: Store) -> Memory:
    """The memory in which every VM that is about to be touched is in doubt, in the store.

    Whoever takes over after a crash must not take another VM instead, nor this one once more.
    """
    plan, memory = order.plan, order.plan.memory
    steps: list[Touched] = [*plan.terminations, *plan.repairs, *plan.keeps]
    if not steps:
        return memory
    known = await known_of(steps, order, hands)
    tellings = [announce(step, known.get(step.vm.vm_id)) for step in steps]
    await hands.journal.record(order.preset, tellings, fencing_token=order.fencing_token)
    now = hands.clock.wall()
    memory = repairing(doubted(memory, plan.terminations, now=now), plan.repairs, now=now)
    await store(memory)
    return memory


async def _create_all(
    memory: Memory, order: Order, hands: Hands, store: Store
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
        await store(memory)
        outcomes += await _all(hands.create(step, order) for step in chunk)
    return memory, outcomes


async def _all(tries: Iterable[Coroutine[None, None, Outcome]]) -> list[Outcome]:
    """Every outcome; what ends authority is raised, once nothing is under way any more."""
    return [_known(each) for each in await asyncio.gather(*tries, return_exceptions=True)]


def _known(result: Result | BaseException) -> Result:
    """The result; what came instead of it is raised."""
    if isinstance(result, BaseException):
        raise result
    return result


def _slow_start(creates: Sequence[Create]) -> Iterator[Sequence[Create]]:
    size, at = 1, 0
    while at < len(creates):
        yield creates[at : at + size]
        at, size = at + size, size * 2
