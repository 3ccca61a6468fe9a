"""Many clients, few locks, and faults one after the other, for so long: a run and its report.

A stage is a store, the processes that serve it, and what may befall them; see bench/locks_stages.
A fault is a blocking call which ends with everything in order again; the next one waits until a
lock was granted after it.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from bench.locks_client import TTL, Client, now
from bench.locks_judge import Findings, History, Seconds, judge, longest_pause
from bench.locks_services import Services
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial

CLIENTS: Final = 24
_PATIENCE: Final = 60.0


class NotSurvived(Exception):
    """Nobody is granted anything any more, or a process has ended by itself."""


class Spell:
    """Lets a fault last; ends early when the run does."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def last(self, seconds: Seconds) -> None:
        """Wait so long, or until the run is given up."""
        self._over.wait(seconds)

    def give_up(self) -> None:
        """Nobody needs to wait any longer."""
        self._over.set()


Fault = Callable[[Spell, random.Random], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What clients speak to, and what befalls it: `often` every other time, if there is one."""

    name: str
    services: Services
    faults: dict[str, Fault]
    often: str = ""
    beat: Seconds
    """How long from the beginning of a fault to that of the next one, at least."""
    tells_floor: bool = False


@dataclass(kw_only=True, slots=True)
class Report:
    """What came of a stage."""

    stage: str
    seconds: Seconds
    grants: int
    findings: Findings
    incidents: list[str]
    """What the services themselves called bugs."""
    longest_pause: Seconds
    faults: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    late_writes: Counter[str] = field(default_factory=Counter)


async def churn(stage: Stage, *, seconds: Seconds, seed: str, ttl: Seconds = TTL) -> Report:
    """Let clients churn the locks of a stage under its faults, and judge what they saw.

    NotSurvived when nobody is granted anything for a minute, or a process has ended by itself.
    """
    history, faults = History(), Counter[str]()
    async with AsyncExitStack() as stack:
        stubs = [
            RuntimeServiceStub(await stack.enter_async_context(dial.channel(address)))
            for address in stage.services.addresses
        ]
        clients = [
            Client(number, stubs, history, seed=seed, tells_floor=stage.tells_floor, ttl=ttl)
            for number in range(CLIENTS)
        ]
        began, over = now(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.live(over))
            async for fault in _strike(stage, history, until=began + seconds, seed=seed):
                faults[fault] += 1
            over.set()
        ended = now()
    acted = [grant for grant in history.grants if grant.ended > grant.answered]
    return Report(
        stage=stage.name,
        seconds=ended - began,
        grants=len(acted),
        findings=judge(history),
        incidents=stage.services.incidents(),
        longest_pause=longest_pause(acted, began, ended),
        faults=faults,
        errors=_sum(client.errors for client in clients),
        late_writes=_sum(client.late_writes for client in clients),
    )


async def _strike(
    stage: Stage, history: History, *, until: Seconds, seed: str
) -> AsyncIterator[str]:
    """Fault after fault, each told when it is over and survived, as long as there is time."""
    dice = random.Random(f"{seed}/faults")  # noqa: S311  it must replay
    await _granted_since(now(), history, f"the beginning of {stage.name}", stage)
    beat = now()
    for name in _order(stage, dice):
        beat = max(now(), beat + stage.beat * dice.uniform(0.8, 1.2))
        if beat + stage.beat / 2 > until:
            break
        await asyncio.sleep(beat - now())
        await _in_thread(stage.faults[name], Spell(), dice)
        await _granted_since(now(), history, name, stage)
        yield name
    await asyncio.sleep(until - now())


def _order(stage: Stage, dice: random.Random) -> Iterator[str]:
    """Names of faults without end: each as often as the others, but for the one that is `often`."""
    others = [name for name in stage.faults if name != stage.often]
    while True:
        for name in dice.sample(others, len(others)):
            if stage.often:
                yield stage.often
            yield name


async def _granted_since(moment: Seconds, history: History, what: str, stage: Stage) -> None:
    """Wait until something was asked for and granted after that moment."""
    while not history.grants or history.grants[-1].asked < moment:
        if now() > moment + _PATIENCE:
            raise NotSurvived(f"nothing is granted any more after: {what}")
        await asyncio.sleep(0.02)
    last_words = "\n".join(stage.services.ended())
    if last_words:
        raise NotSurvived(f"ended by itself after: {what}\n{last_words}")


async def _in_thread(work: Fault, spell: Spell, dice: random.Random) -> None:
    """Do it to its end even when the run is cancelled: what it broke is put in order again."""
    running = asyncio.ensure_future(asyncio.to_thread(work, spell, dice))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        spell.give_up()
        await asyncio.wait([running])
        raise


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counters, Counter[str]())
