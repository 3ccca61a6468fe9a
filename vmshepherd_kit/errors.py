"""What can go wrong, named by what the caller should do next.

    ShepherdError
    ├── BadRequest          FIX     INVALID_ARGUMENT      a person must change the request
    ├── NotFound            FIX     NOT_FOUND
    ├── AlreadyExists       FIX     ALREADY_EXISTS
    ├── Denied              FIX     PERMISSION_DENIED
    ├── Unauthenticated     FIX     UNAUTHENTICATED
    ├── Unsupported         FIX     UNIMPLEMENTED         this driver or server cannot do it
    ├── Refused             STOP    FAILED_PRECONDITION   a gate said no; the reason says which
    │   ├── SessionLost     STOP                          whoever holds it must stop acting
    │   └── StaleFencingToken STOP                        somebody newer holds the lock
    ├── VersionMismatch     REREAD  ABORTED               redo the whole step upon fresh data
    ├── ResumeTokenTooOld   REREAD  OUT_OF_RANGE          list again, then watch
    ├── OutcomeUnknown      REREAD  DEADLINE_EXCEEDED     it may have happened; never assume failure
    ├── QuotaExceeded       WAIT    RESOURCE_EXHAUSTED
    ├── NoCapacity          WAIT    RESOURCE_EXHAUSTED
    ├── Throttled           WAIT    RESOURCE_EXHAUSTED
    ├── Unavailable         RETRY   UNAVAILABLE           the only one that channels retry by
    themselves └── Internal            BUG     INTERNAL

Everything raises these; `status` carries them over the wire and back.  They never hold secrets: a
message and its facts are shown to whoever called.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from grpc import StatusCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta


class Recovery(StrEnum):
    """What the caller should do next."""

    FIX = "fix"
    REREAD = "reread"
    STOP = "stop"
    WAIT = "wait"
    RETRY = "retry"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is wrong: a dotted path and a sentence."""

    field: str
    description: str


class ShepherdError(Exception):
    """The root: a sentence, a reason in UPPER_SNAKE, and facts as strings (they become
    `ErrorInfo.metadata`).
    """

    code: ClassVar[StatusCode] = StatusCode.INTERNAL
    then: ClassVar[Recovery] = Recovery.BUG
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        retry_after: timedelta | None = None,
        violations: Sequence[Violation] = (),
        **facts: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.retry_after = retry_after
        self.violations = tuple(violations)
        self.facts = facts


class BadRequest(ShepherdError):
    """The request cannot be understood or is out of range; `violations` name its fields."""

    code = StatusCode.INVALID_ARGUMENT
    then = Recovery.FIX
    reason = "BAD_REQUEST"


class NotFound(ShepherdError):
    """What was named does not exist."""

    code = StatusCode.NOT_FOUND
    then = Recovery.FIX
    reason = "NOT_FOUND"


class AlreadyExists(ShepherdError):
    """What was to be made is there already, and differs."""

    code = StatusCode.ALREADY_EXISTS
    then = Recovery.FIX
    reason = "ALREADY_EXISTS"


class Denied(ShepherdError):
    """We know who asks, and they may not."""

    code = StatusCode.PERMISSION_DENIED
    then = Recovery.FIX
    reason = "DENIED"


class Unauthenticated(ShepherdError):
    """We do not know who asks."""

    code = StatusCode.UNAUTHENTICATED
    then = Recovery.FIX
    reason = "UNAUTHENTICATED"


class Unsupported(ShepherdError):
    """The server or driver cannot do that at all."""

    code = StatusCode.UNIMPLEMENTED
    then = Recovery.FIX
    reason = "UNSUPPORTED"


class Refused(ShepherdError):
    """A gate said no; pass the `reason` that names it (`NOT_OURS`, `PROTECTED`, …)."""

    code = StatusCode.FAILED_PRECONDITION
    then = Recovery.STOP
    reason = "REFUSED"


class SessionLost(Refused):
    """The session has ended: everything held by it is lost, stop this cycle."""

    reason = "SESSION_LOST"


class StaleFencingToken(Refused):
    """A newer token has been seen: somebody else holds the lock, stop this cycle."""

    reason = "STALE_FENCING_TOKEN"


class VersionMismatch(ShepherdError):
    """What was read has changed since: read again and redo the whole step."""

    code = StatusCode.ABORTED
    then = Recovery.REREAD
    reason = "VERSION_MISMATCH"


class ResumeTokenTooOld(ShepherdError):
    """The changes since that token are forgotten: list again, then watch from there."""

    code = StatusCode.OUT_OF_RANGE
    then = Recovery.REREAD
    reason = "RESUME_TOKEN_TOO_OLD"


class OutcomeUnknown(ShepherdError):
    """The time ran out: it may have happened or not.  Never assume failure, look."""

    code = StatusCode.DEADLINE_EXCEEDED
    then = Recovery.REREAD
    reason = "OUTCOME_UNKNOWN"


class QuotaExceeded(ShepherdError):
    """The project's quota is used up."""

    code = StatusCode.RESOURCE_EXHAUSTED
    then = Recovery.WAIT
    reason = "QUOTA_EXCEEDED"


class NoCapacity(ShepherdError):
    """The cloud has no room for it, here and now."""

    code = StatusCode.RESOURCE_EXHAUSTED
    then = Recovery.WAIT
    reason = "NO_CAPACITY"


class Throttled(ShepherdError):
    """Too much at once; `retry_after` says when to come back."""

    code = StatusCode.RESOURCE_EXHAUSTED
    then = Recovery.WAIT
    reason = "THROTTLED"


class Unavailable(ShepherdError):
    """Out of reach for the moment: trying again is right."""

    code = StatusCode.UNAVAILABLE
    then = Recovery.RETRY
    reason = "UNAVAILABLE"


class Internal(ShepherdError):
    """A bug of ours; the log has it under the incident's id."""
