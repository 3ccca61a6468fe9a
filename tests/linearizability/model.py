"""What one name of the runtime API is, if calls came one after the other: a lock, a state, and the
sessions that have ended.

`check` asks it what a call may do to a state.  It follows the port (`runtime_service.port`), not
the rules that drivers share, so that a fault of those is found too.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from runtime_service.domain import Acquired, FencingToken, StaleToken, VersionConflict, Written

from .calls import (
    LOST,
    UNTOLD,
    Call,
    Close,
    Expire,
    Get,
    HeldBy,
    Look,
    Looked,
    Put,
    Refresh,
    Seen,
    TryLock,
    Unlock,
)


class Name(NamedTuple):
    """The lock and the state of a name, and the sessions that can do nothing any more."""

    token: int = 0
    holder: str | None = None
    state: Seen = Seen()
    ended: frozenset[str] = frozenset()

    def after_end(self, session: str, *, frees: bool) -> Name:
        """The session has ended; its lock is free, or still kept from others."""
        holder = None if frees and self.holder == session else self.holder
        return self._replace(holder=holder, ended=self.ended | {session})


class Model:
    """The rules, and what a history tells about tokens and versions: those that others have got,
    open calls cannot have got.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        self._grantees: dict[int, str] = {}
        self._values: dict[int, str] = {}
        for call in calls:
            match call.ask, call.answer:
                case TryLock(session), Acquired(token):
                    self._grantees[token] = session
                case Put(value=value), Written(version):
                    self._values[version] = value
                case Get(), Seen(value, version):
                    self._values[version] = value

    def after(self, name: Name, call: Call) -> list[Name]:  # noqa: PLR0911  (a table)
        """The states that the call may lead to, answered as it was; none when that cannot be."""
        match call.ask:
            case TryLock():
                return self._after_try_lock(name, call.ask, call)
            case Unlock(session, token):
                is_held = _holds(name, session, token)
                after = name._replace(holder=None) if is_held else name
                return _told(after, is_held, call)
            case Put():
                return self._after_put(name, call.ask, call)
            case Get():
                return [name] if call.answer == name.state else []
            case Look():
                return [name] if call.answer == Looked(name.token, name.holder) else []
            case Refresh(session):
                return _told(name, LOST if session in name.ended else True, call)
            case Close(session):
                is_live = session not in name.ended
                after = name.after_end(session, frees=True) if is_live else name
                return _told(after, is_live, call)
            case Expire(session, frees):
                return [name.after_end(session, frees=frees)]

    def _after_try_lock(self, name: Name, ask: TryLock, call: Call) -> list[Name]:
        if ask.session in name.ended:
            return _told(name, LOST, call)
        if name.holder not in {None, ask.session}:
            return _told(name, HeldBy(name.holder or ""), call)
        if name.holder and name.token > ask.floor:
            return _told(name, Acquired(FencingToken(name.token)), call)
        token = max(name.token, ask.floor) + 1
        if isinstance(call.answer, Acquired):
            # The first token of a name may be any: a store begins where it likes.
            first = call.answer.fencing_token if name.token == 0 else 0
            return _told(
                _granted(name, ask, max(token, first)),
                Acquired(FencingToken(max(token, first))),
                call,
            )
        is_possible = call.is_open or (call.answer == LOST and not ask.is_alone)
        is_others = self._grantees.get(token, ask.session) != ask.session
        return [_granted(name, ask, token)] if is_possible and not is_others else []

    def _after_put(self, name: Name, ask: Put, call: Call) -> list[Name]:
        if not _holds(name, ask.session, ask.token):
            is_lost = call.answer == LOST and ask.session in name.ended
            return [name] if is_lost or _is_stale(name, call) else []
        if ask.expected != name.state.version:
            return _told(name, VersionConflict(name.state.version), call)
        version = ask.expected + 1
        if call.is_open and self._values.get(version, ask.value) != ask.value:
            return []
        after = name._replace(state=Seen(ask.value, version, ask.token))
        return _told(after, Written(version), call)


def _granted(name: Name, ask: TryLock, token: int) -> Name:
    return name._replace(token=token, holder=ask.session)


def _holds(name: Name, session: str, token: int) -> bool:
    return session not in name.ended and (name.holder, name.token) == (session, token)


def _is_stale(name: Name, call: Call) -> bool:
    """Whether the right newest token is told, if any: over the wire it is not."""
    match call.answer:
        case StaleToken(newest):
            return newest in {name.token, UNTOLD}
    return call.is_open


def _told(after: Name, answer: object, call: Call) -> list[Name]:
    """That state, if the answer is the right one or nobody knows it."""
    return [after] if call.is_open or call.answer == answer else []
