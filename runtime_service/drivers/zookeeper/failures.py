"""What ZooKeeper's errors mean, in sentences an operator can act upon.

`Conflict` and `LOST` never leave the driver: the step is done again upon what is there then.
"""

from __future__ import annotations

from typing import Final

from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    InvalidACLError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    NotReadOnlyCallError,
    OperationTimeoutError,
    QuotaExceededError,
    RequestTimeoutError,
    SessionClosedRequireSaslError,
    SessionExpiredError,
    SessionMovedError,
    ThrottledOpError,
    ZookeeperError,
)

from vmshepherd_kit.errors import (
    QuotaExceeded,
    Refused,
    SessionLost,
    ShepherdError,
    Unavailable,
)

LOST: Final = (
    ConnectionLoss,
    ConnectionClosedError,
    SessionExpiredError,
    SessionMovedError,
    OperationTimeoutError,
    RequestTimeoutError,
    NotReadOnlyCallError,
    ThrottledOpError,
)
"""The connection was lost on the way: what was asked for is done, or not."""

CONFLICTS: Final = (BadVersionError, NodeExistsError, NoNodeError, NotEmptyError)
"""Something is not as it was read."""


class Conflict(Exception):
    """Somebody changed what a step was based upon: read again, and do it again."""


def unreachable(servers: str, last_words: str) -> Unavailable:
    """Nobody answered in time."""
    said = f" ({last_words})" if last_words else ""
    return Unavailable(
        f"ZooKeeper at {servers} does not answer in time{said}: see that most of its nodes run and "
        "can be reached from here; it goes on by itself",
        reason="STORE_UNREACHABLE",
        servers=servers,
    )


def contended(servers: str) -> Unavailable:
    """There was an answer each time, and each time somebody else was faster."""
    return Unavailable(
        f"what was to be changed in ZooKeeper at {servers} was changed by others again and again: "
        "try again",
        reason="STORE_BUSY",
        servers=servers,
    )


def refused(servers: str) -> Refused:
    """ZooKeeper does not accept who we are."""
    return Refused(
        f"ZooKeeper at {servers} does not accept the credentials: set runtime.options.sasl or "
        "runtime.options.addauth to what its administrator gave",
        reason="STORE_DENIED",
        servers=servers,
    )


def at_run_time(error: ShepherdError) -> ShepherdError:
    """What refuses a start is out of reach later, for somebody mends it meanwhile."""
    if isinstance(error, Refused) and not isinstance(error, SessionLost):
        return Unavailable(error.message, reason="STORE_UNREACHABLE")
    return error


def understood(error: ZookeeperError, servers: str, path: str) -> ShepherdError:
    """What to raise in place of an error that no repetition mends."""
    if isinstance(error, AuthFailedError | InvalidACLError | SessionClosedRequireSaslError):
        return refused(servers)
    if isinstance(error, NoAuthError):
        return Refused(
            f"ZooKeeper at {servers} lets these credentials not use {path}: its nodes are for "
            "whoever made them; give every runtime_service the same runtime.options.addauth or "
            "sasl, or set runtime.options.working_path to another path",
            reason="STORE_DENIED",
            servers=servers,
            path=path,
        )
    if isinstance(error, QuotaExceededError):
        return QuotaExceeded(
            f"the quota of {path} in ZooKeeper at {servers} is used up: raise it (setquota), and "
            "it goes on by itself",
            reason="STORE_FULL",
            path=path,
        )
    return Unavailable(
        f"ZooKeeper at {servers} fails ({type(error).__name__}): its log says why",
        reason="STORE_FAILING",
        servers=servers,
    )
