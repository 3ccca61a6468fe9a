"""Errors ⇄ google.rpc.Status, and the server interceptor that makes them leave in that form.

`ErrorsInterceptor` is the outermost one: whatever a handler raises, the client gets exactly one
status, with one ErrorInfo, and never the text of an exception that nobody meant for it.  `dial`
uses the way back.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar, cast

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from vmshepherd_kit import errors, handlers, log, stamps
from vmshepherd_kit.clock import SystemChance
from vmshepherd_kit.errors import ShepherdError, Violation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from vmshepherd_kit.clock import Chance
    from vmshepherd_kit.handlers import Context, Continuation, Handler

DOMAIN: Final = "vmshepherd"

# A status of an RPC travels in its trailers, of which peers take 8 KiB: the message percent-encoded
# (three for one, at worst), and once more within the whole, which is in base64 (four for three).
_MESSAGE_BYTES: Final = 1024
_STATUS_BYTES: Final = 3072

M = TypeVar("M", bound=Message)

_BY_NUMBER: Final = {code.value[0]: code for code in grpc.StatusCode}

# What stands for a code when the reason says nothing to us: another version's, or another
# program's.
_BY_CODE: Final[dict[grpc.StatusCode, type[ShepherdError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.BadRequest,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: errors.Denied,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unsupported,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Refused,
    grpc.StatusCode.ABORTED: errors.VersionMismatch,
    grpc.StatusCode.OUT_OF_RANGE: errors.ResumeTokenTooOld,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.OutcomeUnknown,
    # The server dropped the call before or after it did the work: nobody can say.
    grpc.StatusCode.CANCELLED: errors.OutcomeUnknown,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Throttled,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
}

_log = log.get("errors")


def to_proto(error: ShepherdError | None) -> status_pb2.Status:
    """The status of one error; of None, OK: for the results of a batch."""
    if error is None:
        return status_pb2.Status()
    status = status_pb2.Status(code=error.code.value[0], message=_clean(error.message))
    facts = {_clean(key): _clean(value) for key, value in error.facts.items()}
    _add(status, _info(error, facts))
    if error.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_clean(violation.field), description=_clean(violation.description)
            )
            for violation in error.violations
        ]
        _add(status, error_details_pb2.BadRequest(field_violations=fields))
    if error.retry_after is not None:
        delay = stamps.to_duration(error.retry_after)
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_proto(status: status_pb2.Status) -> ShepherdError | None:
    """The error of a status, of the class that its reason names, or else its code; of OK, None."""
    if status.code == 0:
        return None
    code = _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    info = _detail(status, error_details_pb2.ErrorInfo()) or error_details_pb2.ErrorInfo()
    bad = _detail(status, error_details_pb2.BadRequest()) or error_details_pb2.BadRequest()
    retry = _detail(status, error_details_pb2.RetryInfo())
    kind = _kind(code, info.reason)
    error = kind(
        status.message,
        reason=info.reason or None,
        retry_after=stamps.from_duration(retry.retry_delay) if retry else None,
        violations=[Violation(v.field, v.description) for v in bad.field_violations],
    )
    error.facts = dict(info.metadata)
    return error


def from_rpc_error(failure: grpc.aio.AioRpcError) -> ShepherdError:
    """The error that a failed call stands for; the failure itself belongs in its `__cause__`."""
    try:
        # AioRpcError is no grpc.Call by type, and has all that is read of one.
        status = rpc_status.from_call(cast("grpc.Call", failure))
    except (ValueError, DecodeError):
        # The details contradict the code or are no status at all: another program answered.
        status = None
    if status is None:
        code = failure.code()
        status = status_pb2.Status(code=code.value[0], message=failure.details() or code.name)
    return from_proto(status) or errors.Internal("a call failed with the status OK")


def _kind(code: grpc.StatusCode, reason: str) -> type[ShepherdError]:
    for kind in _tree(ShepherdError):
        if kind.code is code and kind.reason == reason:
            return kind
    return _BY_CODE.get(code, errors.Internal)


def _tree(root: type[ShepherdError]) -> Iterator[type[ShepherdError]]:
    for kind in root.__subclasses__():
        # A subclass of somebody else's may take other arguments: only our own are rebuilt.
        if kind.__module__ == errors.__name__:
            yield kind
            yield from _tree(kind)


def _info(error: ShepherdError, facts: dict[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts)


def _clean(text: object) -> str:
    """The text without what protobuf refuses: an error must not fail on its way out."""
    return str(text).encode(errors="replace").decode()


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _detail(status: status_pb2.Status, into: M) -> M | None:
    return next((into for detail in status.details if detail.Unpack(into)), None)


class ErrorsInterceptor(grpc.aio.ServerInterceptor):
    """Makes every failure of a handler a well-formed status; register it first."""

    def __init__(self, chance: Chance | None = None) -> None:
        self._chance = chance or SystemChance()

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the handler of this call, its request's parsing included."""
        handler = await continuation(details)
        if handler is None:
            return None
        method = details.method
        return handlers.guarded(
            handler,
            lambda context: self._caught(context, method),
            parse=_strictly(handler.request_deserializer),
        )

    @asynccontextmanager
    async def _caught(self, context: Context, method: str) -> AsyncIterator[None]:
        try:
            yield
        except grpc.aio.BaseError:
            raise  # abort() was called already, or the connection is gone: gRPC's own business
        except ShepherdError as error:
            await abort(context, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this call: an inner task was.  Unanswered, the client would wait
            # for ever.
            await abort(context, self._incident(method))
        except Exception:  # noqa: BLE001  the one place where a bug becomes an answer
            await abort(context, self._incident(method))

    def _incident(self, method: str) -> ShepherdError:
        incident = self._chance.uuid()
        _log.exception("call failed by a bug", method=method, incident=incident)
        return errors.Internal(
            f"internal error; the server's log has it as incident {incident}", incident=incident
        )


async def abort(context: Context, error: ShepherdError) -> None:
    """End the call with this error's status, cut to what trailers may carry."""
    await context.abort_with_status(rpc_status.to_status(_for_trailers(error)))


def _for_trailers(error: ShepherdError) -> status_pb2.Status:
    status = to_proto(error)
    raw = status.message.encode()
    if len(raw) > _MESSAGE_BYTES:
        status.message = raw[:_MESSAGE_BYTES].decode(errors="ignore") + "…"
    while status.ByteSize() > _STATUS_BYTES and len(status.details) > 1:
        status.details.pop()
    if status.ByteSize() > _STATUS_BYTES:
        del status.details[:]
        _add(status, _info(error, {}))
    return status


def _strictly(deserialize: Callable[[bytes], object] | None) -> Callable[[bytes], object]:
    def parse(raw: bytes) -> object:
        try:
            return deserialize(raw) if deserialize else raw
        except DecodeError as e:
            raise errors.BadRequest(
                "the request is not a well-formed message of this method",
                reason="MALFORMED_REQUEST",
            ) from e

    return parse
