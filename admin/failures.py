"""Errors as one sentence with the way out, and as exit codes for scripts."""

from __future__ import annotations

import grpc

from admin.options import ENVIRONMENT, Exit
from admin.words import clean
from vmshepherd_kit import errors
from vmshepherd_kit.errors import ShepherdError

_STATUS_TRAILER = "grpc-status-details-bin"


def exit_code(error: ShepherdError) -> Exit:
    """What a script learns."""
    if isinstance(error, errors.NotFound):
        return Exit.NOT_FOUND
    if isinstance(error, errors.Unavailable | errors.OutcomeUnknown):
        return Exit.UNAVAILABLE
    return Exit.FAILURE


def sentence(error: ShepherdError, address: str) -> str:
    """What a person reads: what happened, and what to do."""
    if isinstance(error, errors.OutcomeUnknown) and not _was_said_by_a_server(error):
        return f"{address} did not answer in time: what was asked for may have been done, or not"
    if isinstance(error, errors.Unavailable) and not _was_said_by_a_server(error):
        return (
            f"nobody answers at {address}: start the suite with `vmshepherd up`, "
            f"or name another orchestrator with --address or {ENVIRONMENT}"
        )
    if isinstance(error, errors.Unsupported) and not _was_said_by_a_server(error):
        return f"{address} is not the orchestrator of VmShepherd: look at --address"
    fields = [f"{v.field}: {v.description}" for v in error.violations]
    more = f" ({'; '.join(fields)})" if fields else ""
    return clean(error.message + more)


def _was_said_by_a_server(error: ShepherdError) -> bool:
    """Whether a server of ours said so, and not the connection to it."""
    cause = error.__cause__
    if not isinstance(cause, grpc.aio.AioRpcError):
        return True
    return any(key == _STATUS_TRAILER for key, _ in cause.trailing_metadata() or ())
