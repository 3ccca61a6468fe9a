"""Clients that quarrel about a few names, and the quarrel as a whole: seeded and recorded.

They do what orchestrators do, and what those must never do as well: they write under tokens that
they have given back, ask in the name of a session that another one uses at the same time, or of
one that has ended.  Which of it happens is drawn from the seed; what comes of it is the store's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from runtime_service.domain import Acquired, VersionConflict, Written

from .calls import LOST, Answer, Put, Seen
from .record import Asking, Record
from .scene import LONG, SHORT, Ground, Misfortune, Quarrel

_GIVE_UP_SECONDS: Final = 20.0
_LONGEST_PAUSE_SECONDS: Final = 0.8


@dataclass(slots=True)
class Known:
    """What all clients have heard, so that their writes often succeed."""

    sessions: list[str] = field(default_factory=list)
    tokens: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    versions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    newest: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    holders: dict[str, str] = field(default_factory=dict)
    """By name; it may have changed hands since."""
    values: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


async def quarrel(what: Quarrel, ground: Ground) -> tuple[Record, list[str]]:
    """All that was asked and answered, and the faults that were survived meanwhile."""
    record, known = Record(what.span), Known()
    clients = [Client(number, what, ground, record, known) for number in range(what.clients)]
    await clients[0].lock_each_name_once()
    misfortune = Misfortune(what, ground)
    async with asyncio.TaskGroup() as group:
        group.create_task(misfortune.run())
        await asyncio.wait([group.create_task(client.run(misfortune)) for client in clients])
        misfortune.enough.set()
    await clients[0].read_each_name()
    return record, misfortune.happened


class Client:
    """Asks one thing after the other."""

    def __init__(
        self, number: int, what: Quarrel, ground: Ground, record: Record, known: Known
    ) -> None:
        self._name = f"c{number}"
        self._what = what
        self._ground = ground
        self._record = record
        self._known = known
        self._names = [f"preset/{chr(ord('a') + i)}" for i in range(what.names)]
        self._chance = Random(what.seed * 1000 + number)
        self._session: str | None = None
        self._opened = itertools.count(1)

    async def lock_each_name_once(self) -> None:
        """From then on the next token of each is known."""
        for name in self._names:
            while not self._known.newest[name]:
                await self._try_lock(await self._own_session(), [name])
            await self._unlock(await self._own_session(), name)

    async def read_each_name(self) -> None:
        """What has become of it all."""
        # Neither a store nor a list says a word when it is back.
        while await (await self._asking()).get(self._names) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def run(self, misfortune: Misfortune) -> None:
        """So many calls, and a while of silence behind each that was not answered."""
        pause, answered = 0.02, 0
        for number in itertools.count():
            is_enough = number >= self._what.calls and answered > self._what.calls / 2
            if is_enough and misfortune.is_over:
                return
            answer = await self._something(await self._actor())
            answered += answer is not None
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS) if answer is None else 0.02
            if answer is None:
                await asyncio.sleep(self._chance.uniform(0.5, 1.0) * pause)
            await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, self._what.pace_seconds))
        if self._what.span is SHORT and self._is(0.02):
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * SHORT.ttl.total_seconds())

    async def _something(self, session: str) -> object:
        names = self._some_names()
        refreshes = 2 if self._what.span is LONG else 20
        acts: list[tuple[Callable[[], Awaitable[object]], int]] = [
            (lambda: self._try_lock(session, names), 26),
            (lambda: self._put(session, names), 34),
            (lambda: self._unlock(session, names[0]), 6),
            (lambda: self._unlock(session, self._held_by(session) or names[0]), 14),
            (lambda: self._get(names), 16),
            (lambda: self._look(names), 4),
            (lambda: self._refresh(session), refreshes),
            (lambda: self._close(session), 2),
        ]
        [act] = self._chance.choices([a for a, _ in acts], [weight for _, weight in acts])
        return await act()

    def _some_names(self) -> list[str]:
        number = self._chance.choices([1, 2, 3], [80, 14, 6])[0]
        return self._chance.sample(self._names, min(number, len(self._names)))

    # Who asks

    async def _actor(self) -> str:
        """Mostly itself; at times it takes another's session for its own, or one of the past."""
        own = await self._own_session()
        return self._chance.choice(self._known.sessions[-24:]) if self._is(0.1) else own

    async def _own_session(self) -> str:
        while self._session is None:
            owner = f"{self._name}.{next(self._opened)}"
            if await (await self._asking()).open_session(owner):
                self._session = owner
                self._known.sessions.append(owner)
            else:
                await asyncio.sleep(0.1)
        return self._session

    async def _asking(self) -> Asking:
        """Any of the stores, as soon as there is one."""
        while not self._ground.stores:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        store = self._chance.choice(self._ground.stores)
        is_impatient = self._is(self._what.impatience)
        patience = self._chance.uniform(0, 0.01) if is_impatient else _GIVE_UP_SECONDS
        return Asking(self._name, store, self._record, patience=patience)

    # What it asks

    async def _try_lock(self, session: str, names: Sequence[str]) -> object:
        floors = {name: self._floor(name) for name in names}
        answers = await (await self._asking()).try_lock(session, floors)
        for name, answer in zip(names, answers or (), strict=False):
            if isinstance(answer, Acquired):
                self._known.tokens[session, name].append(answer.fencing_token)
                self._known.newest[name] = max(self._known.newest[name], answer.fencing_token)
                self._known.holders[name] = session
        return self._noticed(session, answers)

    def _floor(self, name: str) -> int:
        return self._known.newest[name] + self._chance.randint(0, 2) if self._is(0.1) else 0

    async def _put(self, session: str, names: Sequence[str]) -> object:
        """Under tokens that it has, or had; where it has none, it asks for the locks."""
        mine = [name for name in self._names if self._known.tokens[session, name]]
        wanted = [name for name in names if name in mine] or mine[: len(names)]
        if not wanted:
            return await self._try_lock(session, names)
        puts = {name: self._a_put(session, name) for name in wanted}
        answers = await (await self._asking()).put(puts)
        for name, answer in zip(wanted, answers or (), strict=False):
            self._learn(name, answer)
        return self._noticed(session, answers)

    def _a_put(self, session: str, name: str) -> Put:
        tokens = self._known.tokens[session, name]
        token = self._chance.choice(tokens) if self._is(0.1) else tokens[-1]
        version = max(0, self._known.versions[name] + self._chance.choice([0] * 10 + [-1, 1]))
        value = f"v{next(self._known.values)}"
        return Put(session, token, version, value)

    async def _get(self, names: Sequence[str]) -> object:
        answers = await (await self._asking()).get(names)
        for name, answer in zip(names, answers or (), strict=False):
            self._learn(name, answer)
        return answers

    async def _look(self, names: Sequence[str]) -> object:
        return await (await self._asking()).look(names)

    async def _unlock(self, session: str, name: str) -> object:
        tokens = self._known.tokens[session, name] or [self._known.newest[name]]
        answer = await (await self._asking()).unlock(session, name, tokens[-1])
        if answer == [True]:
            self._known.holders.pop(name, None)
        return answer

    def _held_by(self, session: str) -> str | None:
        held = [name for name, holder in self._known.holders.items() if holder == session]
        return self._chance.choice(held) if held else None

    async def _refresh(self, session: str) -> object:
        return self._noticed(session, [await (await self._asking()).refresh(session)])

    async def _close(self, session: str) -> object:
        answer = await (await self._asking()).close(session)
        # Not always noticed: then it goes on in the name of a session that has ended.
        if session == self._session and self._is(0.7):
            self._session = None
        return answer

    def _learn(self, name: str, answer: Answer) -> None:
        match answer:
            case Written(version) | VersionConflict(version) | Seen(version=version):
                self._known.versions[name] = version

    def _noticed(
        self, session: str, answers: Sequence[Answer | None] | None
    ) -> Sequence[Answer] | None:
        """Whoever is told that its session is lost opens another one."""
        if answers is None or None in answers:
            return None
        if LOST in answers and session == self._session:
            self._session = None
        return [answer for answer in answers if answer is not None]

    def _is(self, probability: float) -> bool:
        return self._chance.random() < probability
