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
from collections.abc import Awaitable, Callable, Sequence
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
_DEADLINE: Final = timedelta(seconds=0.5)
_BETWEEN_TRIES: Final = (0.05, 0.15)

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
    ) -> None:
        self.late_writes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._number = number
        self._replicas = replicas
        self._history = history
        self._dice = random.Random(f"{seed}/{number}")  # noqa: S311  it must replay
        self._tells_floor = tells_floor
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
        grant = await self._try_lock(lease, self._dice.choice(NAMES))
        if grant and now() < grant.ended:
            # Unless it is given back in good order, nobody knows what became of it: away with it.
            self._lease = None
            if await self._manner()(lease, grant):
                self._lease = lease

    def _manner(self) -> Callable[[Lease, Grant], Awaitable[bool]]:
        """How a lock is held; true when the session is as good as before, and without locks."""
        manners = {
            self._briefly: 79,
            self._long: 6,
            self._dawdling: 5,
            self._regretting: 4,
            self._closing: 4,
            self._vanishing: 2,
        }
        return self._dice.choices(list(manners), weights=list(manners.values()))[0]

    async def _briefly(self, lease: Lease, grant: Grant) -> bool:
        await self._write(grant)
        await asyncio.sleep(self._dice.uniform(0, 0.02))
        return await self._unlock(lease, grant)

    async def _long(self, lease: Lease, grant: Grant) -> bool:
        for _ in range(self._dice.randint(2, 5)):
            await asyncio.sleep(self._dice.uniform(0.05, 0.12))
            await self._refresh(lease)
            grant.ended = lease.deadline
            if now() < lease.deadline:
                await self._write(grant)
        return await self._unlock(lease, grant)

    async def _dawdling(self, lease: Lease, grant: Grant) -> bool:
        await asyncio.sleep(TTL * self._dice.uniform(0.7, 2))
        if self._dice.random() < 1 / 3:
            await self._refresh(lease)
            grant.ended = lease.deadline
        await self._write(grant)
        return False

    async def _regretting(self, lease: Lease, grant: Grant) -> bool:
        await self._unlock(lease, grant)
        await asyncio.sleep(self._dice.uniform(0, TTL / 2))
        await self._refresh(lease)
        await self._write(grant)
        return True

    async def _closing(self, lease: Lease, grant: Grant) -> bool:
        await self._write(grant)
        grant.ended = min(lease.deadline, now())
        await self._ask("CloseSession", pb.CloseSessionRequest(session_id=lease.session_id))
        return False

    async def _vanishing(self, lease: Lease, grant: Grant) -> bool:
        return False

    # Calls

    async def _leased(self) -> Lease:
        lease = self._lease
        if lease is None or lease.deadline <= now():
            self._lease = lease = await self._open()
        elif lease.deadline - now() < TTL / 2:
            # A session that is lost is found to be so once, not again and again.
            self._lease = None
            await self._refresh(lease)
            self._lease = lease
        return lease

    async def _open(self) -> Lease:
        request = pb.OpenSessionRequest(
            owner=f"client {self._number}", ttl=stamps.to_duration(timedelta(seconds=TTL))
        )
        sent = now()
        answer: pb.OpenSessionResponse = await self._ask("OpenSession", request)
        return Lease(answer.session.session_id, sent + TTL - MARGIN)

    async def _refresh(self, lease: Lease) -> None:
        sent = now()
        await self._ask("RefreshSession", pb.RefreshSessionRequest(session_id=lease.session_id))
        lease.deadline = sent + TTL - MARGIN

    async def _try_lock(self, lease: Lease, name: str) -> Grant | None:
        floor = self._newest[name] if self._tells_floor else None
        wish = pb.LockWish(name=name, floor=floor)
        asked = now()
        answer: pb.TryLockResponse = await self._ask(
            "TryLock", pb.TryLockRequest(session_id=lease.session_id, wishes=[wish])
        )
        [result] = answer.results
        if not result.HasField("acquired"):
            return None
        token = result.acquired.fencing_token
        self._newest[name] = max(self._newest[name], token)
        grant = Grant(name, self._number, lease.session_id, token, asked, now(), lease.deadline)
        self._history.grants.append(grant)
        return grant

    async def _unlock(self, lease: Lease, grant: Grant) -> bool:
        grant.ended = min(lease.deadline, now())
        lock = pb.HeldLock(name=grant.name, fencing_token=grant.token)
        await self._ask("Unlock", pb.UnlockRequest(session_id=lease.session_id, locks=[lock]))
        return True

    async def _write(self, grant: Grant) -> None:
        """Write what is stored anew, with the version that it has: only the token can be wrong."""
        stored = await self._read(grant.name)
        self._marks += 1
        mark = f"client {self._number}, write {self._marks}"
        write = pb.StateWrite(
            name=grant.name,
            value=mark.encode(),
            fencing_token=grant.token,
            expected_version=stored.version,
        )
        sent = now()
        version, reason = await self._put(grant.session, write)
        if sent >= grant.ended:
            self.late_writes[reason] += 1
        self._history.writes.append(Write(grant.name, mark, grant.token, sent, now(), version))

    async def _put(self, session_id: str, write: pb.StateWrite) -> tuple[int | None, str]:
        """The version that is written, or None; and what was said."""
        request = pb.PutStatesRequest(session_id=session_id, writes=[write])
        try:
            answer: pb.PutStatesResponse = await self._ask("PutStates", request)
        except ShepherdError as e:
            return None, e.reason
        [result] = answer.results
        refusal = from_proto(result.status)
        return (None, refusal.reason) if refusal else (result.version, "TAKEN")

    async def _read(self, name: str) -> Sight:
        sent = now()
        answer: pb.GetStatesResponse = await self._ask(
            "GetStates", pb.GetStatesRequest(names=[name])
        )
        state = answer.results[0].state
        sight = Sight(name, state.value.decode(), state.fencing_token, state.version, sent, now())
        self._history.sights.append(sight)
        return sight

    async def _ask(self, method: str, request: Any) -> Any:
        """What a replica answers, whichever."""
        asked = getattr(self._dice.choice(self._replicas), method)
        return await dial.ask(asked, request, deadline=_DEADLINE)
