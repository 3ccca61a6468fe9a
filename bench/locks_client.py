"""A client of the churn: it takes locks, writes under them, and dawdles longer than it may.

It obeys the rule of a holder: its right to act ends a margin before its session can, counted from
before the last refresh was sent, on a clock that runs on in suspend.  One that dawdled sends its
write all the same, as a process does that was stopped between its last look at the clock and the
call: the store must refuse it.  What it did and was told goes into the history.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from bench.locks_judge import Grant, History, Seconds, Sight, Write
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, stamps
from vmshepherd_kit.errors import ShepherdError
from vmshepherd_kit.status import from_proto

NAMES: Final = ("north", "east", "south", "west")
TTL: Final = 0.3
MARGIN: Final = 0.02
_PATIENCE: Final = timedelta(seconds=0.5)
_MOST_AT_ONCE: Final = 3
_BETWEEN_TRIES: Final = (0.1, 0.25)

Answer = TypeVar("Answer")


def now() -> Seconds:
    """The one clock of a history."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Lease:
    """A session, and until when it surely lives."""

    session_id: str
    deadline: Seconds


class Client:
    """One of those who want the locks."""

    def __init__(
        self,
        number: int,
        replicas: Sequence[RuntimeServiceStub],
        history: History,
        *,
        seed: str,
        tells_floor: bool,
        ttl: Seconds = TTL,
    ) -> None:
        self.late_writes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._number = number
        self._replicas = replicas
        self._history = history
        self._dice = random.Random(f"{seed}/{number}")  # noqa: S311  it must replay
        self._tells_floor = tells_floor
        self._ttl = ttl
        self._patience = max(_PATIENCE, timedelta(seconds=ttl))
        self._newest = dict.fromkeys(NAMES, 0)
        self._lease: Lease | None = None
        self._marks = 0

    async def live(self, over: asyncio.Event) -> None:
        """Take locks and let go of them, whatever fails meanwhile, until it is over."""
        while not over.is_set():
            try:
                await self._turn()
            except ShepherdError as e:
                self.errors[e.reason] += 1
            await asyncio.sleep(self._dice.uniform(*_BETWEEN_TRIES))

    async def _turn(self) -> None:
        lease = await self._leased()
        names = self._dice.sample(NAMES, self._dice.randint(1, _MOST_AT_ONCE))
        grants = await self._try_locks(lease, names)
        if grants and now() < lease.deadline:
            # Unless all is given back in good order, nobody knows what is held: away with it.
            self._lease = None
            if await self._manner()(lease, grants):
                self._lease = lease

    def _manner(self) -> Callable[[Lease, list[Grant]], Awaitable[bool]]:
        """How locks are held; true when the session is as good as before, and without locks."""
        manners = {
            self._briefly: 79,
            self._long: 6,
            self._dawdling: 5,
            self._regretting: 4,
            self._closing: 4,
            self._vanishing: 2,
        }
        return self._dice.choices(list(manners), weights=list(manners.values()))[0]

    async def _briefly(self, lease: Lease, grants: list[Grant]) -> bool:
        if self._dice.random() < 1 / 2:
            await self._write(grants)
        return await self._unlock(lease, grants)

    async def _long(self, lease: Lease, grants: list[Grant]) -> bool:
        for _ in range(self._dice.randint(2, 5)):
            await asyncio.sleep(self._dice.uniform(0.05, 0.12))
            await self._refresh(lease, grants)
            if now() < lease.deadline:
                await self._write(grants)
        return await self._unlock(lease, grants)

    async def _dawdling(self, lease: Lease, grants: list[Grant]) -> bool:
        await asyncio.sleep(self._ttl * self._dice.uniform(0.7, 2))
        if self._dice.random() < 1 / 3:
            await self._refresh(lease, grants)
        await self._write(grants)
        return False

    async def _regretting(self, lease: Lease, grants: list[Grant]) -> bool:
        await self._unlock(lease, grants)
        await asyncio.sleep(self._dice.uniform(0, self._ttl / 2))
        await self._refresh(lease)
        await self._write(grants)
        return True

    async def _closing(self, lease: Lease, grants: list[Grant]) -> bool:
        await self._write(grants)
        _end(grants, min(lease.deadline, now()))
        await self._ask("CloseSession", pb.CloseSessionRequest(session_id=lease.session_id))
        return False

    async def _vanishing(self, lease: Lease, grants: list[Grant]) -> bool:
        return False

    # Calls

    async def _leased(self) -> Lease:
        lease = self._lease
        if lease is None or lease.deadline <= now():
            self._lease = lease = await self._open()
        elif lease.deadline - now() < self._ttl / 2:
            # A session that is lost is found to be so once, not again and again.
            self._lease = None
            await self._refresh(lease)
            self._lease = lease
        return lease

    async def _open(self) -> Lease:
        request = pb.OpenSessionRequest(
            owner=f"client {self._number}", ttl=stamps.to_duration(timedelta(seconds=self._ttl))
        )
        sent = now()
        answer: pb.OpenSessionResponse = await self._ask("OpenSession", request)
        return Lease(answer.session.session_id, sent + self._ttl - MARGIN)

    async def _refresh(self, lease: Lease, grants: Sequence[Grant] = ()) -> None:
        sent = now()
        await self._ask("RefreshSession", pb.RefreshSessionRequest(session_id=lease.session_id))
        lease.deadline = sent + self._ttl - MARGIN
        _end(grants, lease.deadline)

    async def _try_locks(self, lease: Lease, names: Sequence[str]) -> list[Grant]:
        wishes = [pb.LockWish(name=name, floor=self._floor(name)) for name in names]
        asked = now()
        answer: pb.TryLockResponse = await self._ask(
            "TryLock", pb.TryLockRequest(session_id=lease.session_id, wishes=wishes)
        )
        answered = now()
        grants = []
        for result in answer.results:
            if result.HasField("acquired"):
                name, token = result.name, result.acquired.fencing_token
                self._newest[name] = max(self._newest[name], token)
                place = (name, self._number, lease.session_id)
                grants.append(Grant(*place, token, asked, answered, lease.deadline))
        self._history.grants += grants
        return grants

    def _floor(self, name: str) -> int | None:
        return self._newest[name] if self._tells_floor else None

    async def _unlock(self, lease: Lease, grants: list[Grant]) -> bool:
        _end(grants, min(lease.deadline, now()))
        locks = [pb.HeldLock(name=grant.name, fencing_token=grant.token) for grant in grants]
        await self._ask("Unlock", pb.UnlockRequest(session_id=lease.session_id, locks=locks))
        return True

    async def _write(self, grants: list[Grant]) -> None:
        """Write what is stored anew, with the versions that it has: only a token can be wrong."""
        stored = await self._read([grant.name for grant in grants])
        marks = [self._mark() for _ in grants]
        writes = [
            pb.StateWrite(
                name=grant.name,
                value=mark.encode(),
                fencing_token=grant.token,
                expected_version=sight.version,
            )
            for grant, mark, sight in zip(grants, marks, stored, strict=True)
        ]
        sent = now()
        outcomes = await self._put(grants[0].session, writes)
        answered = now()
        for grant, mark, (version, reason) in zip(grants, marks, outcomes, strict=True):
            if sent >= grant.ended:
                self.late_writes[reason] += 1
            write = Write(grant.name, mark, grant.token, sent, answered, version)
            self._history.writes.append(write)

    async def _put(
        self, session_id: str, writes: list[pb.StateWrite]
    ) -> list[tuple[int | None, str]]:
        """The version that each has written, or None; and what was said."""
        request = pb.PutStatesRequest(session_id=session_id, writes=writes)
        try:
            answer: pb.PutStatesResponse = await self._ask("PutStates", request)
        except ShepherdError as e:
            return [(None, e.reason)] * len(writes)
        refusals = [from_proto(result.status) for result in answer.results]
        return [
            (None, refusal.reason) if refusal else (result.version, "TAKEN")
            for refusal, result in zip(refusals, answer.results, strict=True)
        ]

    async def _read(self, names: list[str]) -> list[Sight]:
        sent = now()
        answer: pb.GetStatesResponse = await self._ask(
            "GetStates", pb.GetStatesRequest(names=names)
        )
        answered = now()
        states = [result.state for result in answer.results]
        sights = [
            Sight(name, s.value.decode(), s.fencing_token, s.version, sent, answered)
            for name, s in zip(names, states, strict=True)
        ]
        self._history.sights += sights
        return sights

    def _mark(self) -> str:
        self._marks += 1
        return f"client {self._number}, write {self._marks}"

    async def _ask(self, method: str, request: Any) -> Any:
        """What a replica answers, whichever."""
        asked = getattr(self._dice.choice(self._replicas), method)
        return await dial.ask(asked, request, deadline=self._patience)


def _end(grants: Iterable[Grant], moment: Seconds) -> None:
    for grant in grants:
        grant.ended = moment
