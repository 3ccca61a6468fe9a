"""Looks that people ask for, at presets of this replica and of the others.

The others are told by an event of the journal, and say by another one when a cycle is over that
began after it. Called by the servicer; `hear` by the watch of the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from contextvars import Context
from datetime import timedelta

from vmshepherd.runtime.v1 import event_pb2
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd_kit import deadlines
from vmshepherd_kit.clock import Chance

from .authority import Authority
from .clients.runtime import Runtime
from .journal import Journal
from .model import PresetName
from .narrate import Telling
from .replicas import Replicas
from .schedule import Schedule

ASKED = "RECONCILE_ASKED"
DONE = "RECONCILE_DONE"

# Whoever waits without end is answered after this, or a replica that is gone would be waited for.
LONGEST = timedelta(seconds=30)
# What the answer to the caller needs.
SLACK = timedelta(milliseconds=300)


class Looks:
    """Has presets looked at, wherever they are held."""

    def __init__(
        self,
        *,
        schedule: Schedule,
        replicas: Replicas,
        authority: Authority,
        runtime: Runtime,
        journal: Journal,
        chance: Chance,
    ) -> None:
        self._schedule = schedule
        self._replicas = replicas
        self._authority = authority
        self._runtime = runtime
        self._journal = journal
        self._chance = chance
        self._answers = set[asyncio.Task[None]]()

    async def begin(self, names: Sequence[PresetName], *, are_all: bool) -> None:
        """Have them looked at now, and do not wait for it."""
        self._schedule.wake(names)
        await self._tell(self._elsewhere(names), "", are_all=are_all)

    async def finish(self, names: Sequence[PresetName], *, are_all: bool) -> Collection[PresetName]:
        """Have them looked at, and wait; those whose holder said nothing until the caller goes."""
        elsewhere = self._elsewhere(names)
        ours = [name for name in names if name not in set(elsewhere)]
        unanswered, _ = await asyncio.gather(
            self._asked_of_others(elsewhere, are_all=are_all),
            asyncio.gather(*map(self._schedule.next_cycle, ours)),
        )
        # What was handed over meanwhile was not looked at.
        return {*unanswered, *self._elsewhere(ours)}

    def hear(self, event: event_pb2.Event) -> None:
        """Look at what another replica was asked to have looked at, and say so when it is done."""
        ask = event.evidence.get("ask", "")
        if event.kind != ASKED or not ask or event.actor == self._authority.owner:
            return
        answer = self._answer(PresetName(event.preset), ask)
        task = asyncio.get_running_loop().create_task(answer, context=Context())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, preset: PresetName, ask: str) -> None:
        held = sorted(self._authority.tokens())
        wanted = [name for name in held if preset in {"", name}]
        await asyncio.gather(*map(self._schedule.next_cycle, wanted))
        # What was handed over meanwhile was not looked at, or by somebody else.
        if wanted and (not preset or self._authority.token(preset) is not None):
            message = f"looked at {f'all {len(wanted)} presets held here' if not preset else 'it'}"
            telling = Telling(kind=DONE, message=message, evidence={"ask": ask})
            await self._journal.tell(preset, [telling])

    def _elsewhere(self, names: Sequence[PresetName]) -> list[PresetName]:
        return [name for name in names if self._authority.token(name) is None and self._home(name)]

    def _home(self, name: PresetName) -> str:
        """The other replica that looks after a preset; "" when it is this one, or none."""
        home = self._replicas.home(name)
        return "" if home == self._authority.owner else home

    async def _asked_of_others(
        self, names: Sequence[PresetName], *, are_all: bool
    ) -> Collection[PresetName]:
        """Ask the holders of these presets, and wait for them; those that nobody answered for."""
        sources = {name: self._home(name) if are_all else name for name in names}
        missing = set[str](sources.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(_patience().total_seconds()):
                await self._hear_from(missing, names, are_all=are_all)
        return [name for name, source in sources.items() if source in missing]

    async def _hear_from(
        self, missing: set[str], names: Sequence[PresetName], *, are_all: bool
    ) -> None:
        """Tell the holders, and strike whoever has answered, until nobody is missing."""
        if not missing:
            return
        ask, request = self._chance.uuid(), pb.WatchEventsRequest()
        request.filter.kinds.append(DONE)
        is_told = False
        async with aclosing(self._runtime.watch_events(request)) as stream:
            async for chunk in stream:
                if not is_told:
                    # The first chunk says that nothing is missed from now on.
                    is_told = True
                    await self._tell(names, ask, are_all=are_all)
                answers = (event for event in chunk.events if event.evidence.get("ask") == ask)
                missing -= {event.preset or event.actor for event in answers}
                if not missing:
                    return

    async def _tell(self, elsewhere: Sequence[PresetName], ask: str, *, are_all: bool) -> None:
        """Tell the holders: one event does for all of them."""
        telling = Telling(kind=ASKED, message="asked to be looked at now", evidence={"ask": ask})
        for name in [PresetName("")] if elsewhere and are_all else elsewhere:
            await self._journal.tell(name, [telling])


def _patience() -> timedelta:
    left = deadlines.remaining()
    return LONGEST if left is None else max(min(left, LONGEST) - SLACK, timedelta(0))
