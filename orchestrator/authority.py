"""What this replica may act upon: its session, and the locks that it holds by it.

The end of authority is counted from before a refresh was sent, on a clock that runs in suspend, and
is looked up before each mutation. A lost session takes every lock with it, cancels the cycles that
run under them, and another one is opened. What other replicas should know of this one goes along
with each refresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import SessionLost, ShepherdError, StaleFencingToken

from .beside import beside
from .clients.runtime import Held, Lock, Runtime, Wish
from .config import Session as Timing
from .model import PresetName

RETRY_AFTER = timedelta(milliseconds=500)
# How often it is looked up which locks the store takes for ours.
RECKONING = timedelta(seconds=30)

_log = log.get("authority")


def lock_name(preset: PresetName) -> str:
    """Name of the lock, and of the state that it guards."""
    return f"preset/{preset}"


def preset_of(lock: str) -> PresetName:
    """The preset of a lock, or of a state, of that name."""
    return PresetName(lock.removeprefix(lock_name(PresetName(""))))


class Authority:
    """One session at a time, and the tokens held under it."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        owner: str,
        timing: Timing,
        labels: Callable[[], Mapping[str, str]],
        clock: Clock,
        changed: Callable[[bool], None],
    ) -> None:
        """`changed` is told True when a session is opened, False when it is lost."""
        self._runtime = runtime
        self.owner = owner
        self._timing = timing
        self._labels = labels
        self._clock = clock
        self._changed = changed
        self._tried = asyncio.Event()
        self._session_id = ""
        self._until = timedelta(0)
        self._tokens: dict[PresetName, int] = {}
        self._floors: dict[PresetName, int] = {}
        # Given up here and still taken in the store: nobody else gets them before it is told.
        self._unfreed: dict[PresetName, int] = {}
        self._asked: set[PresetName] = set()
        self.error = "no session yet"

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """A session for as long as the block runs; closed at its end: its locks are free at once.

        The block begins when the first attempt to open one is over, successful or not.
        """
        try:
            async with beside(self._keep, self._free_what_is_left, clock=self._clock):
                await self._tried.wait()
                yield
        finally:
            await self._close()

    def tokens(self) -> Mapping[PresetName, int]:
        """Tokens of all presets that are held."""
        return self._tokens

    def token(self, preset: PresetName) -> int | None:
        """Token of a preset, None when it is not held."""
        return self._tokens.get(preset)

    def remaining(self) -> timedelta:
        """How long a mutation may last.  SessionLost when it may not even begin."""
        left = self._until - self._clock.elapsed()
        if not self._session_id or left <= timedelta(0):
            raise SessionLost(f"no session with the runtime service: {self.error or 'it expired'}")
        return left

    async def hold(self, preset: PresetName) -> int | Held:
        """The token of a preset's lock, or who holds it.  SessionLost, Unavailable."""
        self.remaining()
        token = self._tokens.get(preset)
        if token is not None:
            return token
        if preset in self._unfreed:
            # Asked for now, the token would be the former one, which is being given back.
            await self._free(preset, self._unfreed[preset])
            if preset in self._unfreed:
                return Held(self.owner, RETRY_AFTER)
        session_id = self._session_id
        wish = Wish(session_id, lock_name(preset), self._floors.get(preset, 0))
        self._asked.add(preset)
        try:
            answer = await self._runtime.try_lock(wish)
        finally:
            self._asked.discard(preset)
        if session_id != self._session_id:
            raise SessionLost("the session ended while a lock was asked for")
        if isinstance(answer, int):
            self._tokens[preset] = answer
            self._floors.pop(preset, None)
            _log.info("holds preset", preset=preset, fencing_token=answer)
        return answer

    async def yield_to(self, preset: PresetName, error: StaleFencingToken) -> None:
        """Give up a lock whose token somebody has outgrown; the next one will be above that."""
        self._floors[preset] = int(error.facts.get("floor") or 0)
        await self.release(preset)

    async def release(self, preset: PresetName) -> None:
        """Free one lock; a store that cannot be asked is told again until it has heard."""
        token = self._tokens.pop(preset, None)
        if token is not None:
            self._unfreed[preset] = token
            await self._free(preset, token)

    async def announce(self) -> None:
        """Tell others now what they should know of this replica, not with the next refresh."""
        with suppress(ShepherdError):
            if self._session_id:
                await self._refresh()

    @property
    def session_id(self) -> str:
        """The session that writes are made under."""
        return self._session_id

    async def _keep(self) -> None:
        try:
            await self._refresh_for_ever()
        finally:
            # A bug here must not keep anybody waiting; without refreshes, authority ends by itself.
            self._tried.set()

    async def _refresh_for_ever(self) -> None:
        while True:
            asked = self._clock.elapsed()
            try:
                await self._refresh()
            except SessionLost as e:
                self._drop(e.message)
                continue
            except ShepherdError as e:
                self._tried.set()
                self.error = e.message
                _log.warning("session is not being refreshed", error=e.message)
                if self._session_id and self._clock.elapsed() >= self._until:
                    self._drop(e.message)
                await self._clock.sleep(RETRY_AFTER)
                continue
            is_new = self._until == timedelta(0)
            self._until = asked + self._timing.ttl - self._timing.margin
            self.error = ""
            self._tried.set()
            if is_new:
                self._changed(True)
            await self._clock.sleep(self._timing.refresh)

    async def _refresh(self) -> None:
        if self._session_id:
            await self._runtime.refresh_session(
                self._session_id, labels=self._labels(), deadline=self._timing.rpc_timeout
            )
            return
        self._session_id = await self._runtime.open_session(
            self.owner,
            ttl=self._timing.ttl,
            lock_delay=self._timing.lock_delay,
            labels=self._labels(),
            deadline=self._timing.rpc_timeout,
        )
        _log.info("session opened", owner=self.owner)

    async def _free_what_is_left(self) -> None:
        reckoned = self._clock.elapsed()
        while True:
            await self._clock.sleep(self._timing.refresh)
            if self._clock.elapsed() - reckoned >= RECKONING:
                reckoned = self._clock.elapsed()
                await self._find_what_is_left()
            await asyncio.gather(*(self._free(*each) for each in list(self._unfreed.items())))

    async def _find_what_is_left(self) -> None:
        """Find locks that are ours in the store alone: the answer of the grant was lost, or came
        when nobody waited any more, or a store that lost its last writes forgot that one was freed.
        """
        session_id = self._session_id
        try:
            locks = await self._runtime.locks()
        except ShepherdError as e:
            _log.warning("locks cannot be listed", error=e.message)
            return
        if session_id == self._session_id:
            found = {
                preset_of(lock.name): lock.fencing_token
                for lock in locks
                if lock.owner == self.owner and lock.name.startswith(lock_name(PresetName("")))
            }
            self._unfreed |= {
                preset: token
                for preset, token in found.items()
                if preset not in self._tokens and preset not in self._asked
            }

    async def _free(self, preset: PresetName, token: int) -> None:
        session_id = self._session_id
        try:
            await self._runtime.unlock(Lock(session_id, lock_name(preset), token))
        except ShepherdError as e:
            _log.warning("lock was not freed", preset=preset, error=e.message)
        else:
            if session_id == self._session_id:
                self._unfreed.pop(preset, None)

    def _drop(self, why: str) -> None:
        _log.error("session lost, every lock with it", error=why, presets=len(self._tokens))
        self._session_id, self._until = "", timedelta(0)
        self._tokens, self._unfreed = {}, {}
        self.error = why
        self._changed(False)

    async def _close(self) -> None:
        session_id, self._session_id, self._tokens = self._session_id, "", {}
        if session_id:
            # Unreachable now: the session ends by itself.
            with suppress(ShepherdError):
                await self._runtime.close_session(session_id, deadline=self._timing.rpc_timeout)
