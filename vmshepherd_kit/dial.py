"""One way to call: a channel with a deadline on every call and retries on UNAVAILABLE only.

Clients of the suite call `ask` for one answer and `listen` for a stream; both raise the errors of
`errors`, and neither waits longer than the call that is being served at the moment (see
`deadlines`).  Nothing here knows any contract.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import grpc

from vmshepherd_kit import deadlines
from vmshepherd_kit.errors import OutcomeUnknown, ShepherdError, Unavailable
from vmshepherd_kit.status import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

Request = TypeVar("Request")
Response = TypeVar("Response")

# What gRPC says when time ran out and no server has said anything.
_SILENCE: Final = "Deadline Exceeded"
_DEADLINE: Final = timedelta(seconds=10)
# What an answer needs on its way back to whoever asked us.
_SLACK: Final = timedelta(milliseconds=20)

_SERVICE_CONFIG: Final[dict[str, Any]] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # When most calls fail, retries only add to the load: then they stop.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
}

# Who mostly fails or gives no answer is not asked for a while, unless all do (gRFC A50).
_PASSING_OVER: Final[dict[str, Any]] = {
    "outlier_detection_experimental": {
        "interval": "0.5s",
        # Longer than a call tries one that hangs, or it is met at each attempt.  Not much longer:
        # the others are all there is while it lasts, and they may go, too.
        "baseEjectionTime": "2s",
        "maxEjectionTime": "5s",
        "maxEjectionPercent": 50,
        "failurePercentageEjection": {
            "threshold": 50,
            "enforcementPercentage": 100,
            "minimumHosts": 2,
            "requestVolume": 1,
        },
        "childPolicy": [{"round_robin": {}}],
    }
}

_OPTIONS: Final[list[tuple[str, str | int]]] = [
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A server that comes back is found again within a second or two, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A channel is a connection of its own, or the limits of one client would be those of another.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]


def channel(
    address: str,
    *,
    deadline: timedelta = _DEADLINE,
    once: Sequence[tuple[str, str]] = (),
    passed_over: timedelta | None = None,
) -> grpc.aio.Channel:
    """A channel to `host:port`, or to several as `ipv4:host:port,host:port`; close it, or use it as
    `async with`.

    Every call without a deadline gets this one.  Methods named in `once`, as (service, method),
    are never sent again by the channel: a connection that broke after the request was delivered
    looks like one that broke before.  Of several addresses, one that gives no answer within
    `passed_over` is passed over: the call goes to another one, so both may carry it out.  Keep the
    channel: one that is collected cancels its calls.
    """
    config, options = _service_config(once), list(_OPTIONS)
    if passed_over is not None and "," in address:
        config = _passing_over(config, passed_over)
        # What the core of gRPC knows a timeout of one attempt by.
        options.append(("grpc.experimental.enable_hedging", 1))
    options.append(("grpc.service_config", json.dumps(config)))
    return grpc.aio.insecure_channel(
        address, options=options, interceptors=[_DefaultDeadline(deadline)]
    )


def _service_config(once: Sequence[tuple[str, str]]) -> dict[str, Any]:
    if not once:
        return _SERVICE_CONFIG
    names = [{"service": service, "method": method} for service, method in once]
    return {
        **_SERVICE_CONFIG,
        "methodConfig": [*_SERVICE_CONFIG["methodConfig"], {"name": names}],
    }


def _passing_over(config: dict[str, Any], after: timedelta) -> dict[str, Any]:
    first, *rest = config["methodConfig"]
    retry = {**first["retryPolicy"], "perAttemptRecvTimeout": f"{after.total_seconds():.3f}s"}
    return {
        **config,
        "loadBalancingConfig": [_PASSING_OVER],
        # All calls under way meet the one that hangs at once, and each costs a token.
        "retryThrottling": {"maxTokens": 1000, "tokenRatio": 1},
        "methodConfig": [{**first, "retryPolicy": retry}, *rest],
    }


async def ask(
    method: Callable[..., grpc.aio.UnaryUnaryCall[Request, Response]],
    request: Request,
    *,
    deadline: timedelta | None = None,
) -> Response:
    """The answer of one call.  Raises the error that the server named.

    OutcomeUnknown when time ran out: the call may have been carried out.
    """
    try:
        return await method(request, timeout=None if deadline is None else deadline.total_seconds())
    except grpc.aio.AioRpcError as e:
        raise _error(e, method) from e


async def listen(
    method: Callable[..., grpc.aio.UnaryStreamCall[Request, Response]],
    request: Request,
    *,
    deadline: timedelta | None = None,
) -> AsyncGenerator[Response, None]:
    """The messages of one stream, without a deadline unless one is given; the call ends with the
    loop.

    Wrap it in `contextlib.aclosing` where leaving the loop early must end the call at once.
    """
    clamped = _clamped(deadline)
    call = method(request, timeout=None if clamped is None else clamped.total_seconds())
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as e:
        raise _error(e, method) from e
    finally:
        # gRPC does not cancel a stream that nobody reads any more.
        call.cancel()


def _error(failure: grpc.aio.AioRpcError, method: object) -> ShepherdError:
    """What a failed call stands for; who is out of reach or silent is named, in fewer words than
    gRPC's.
    """
    error = from_rpc_error(failure)
    if isinstance(error, OutcomeUnknown) and error.message == _SILENCE:
        return OutcomeUnknown(f"{_service(method)} gave no answer in time")
    if isinstance(error, Unavailable) and "last error: " in error.message:
        service = _service(method)
        where, _, why = error.message.rpartition("last error: ")[2].rpartition(": ")
        address = where.partition("ipv4:")[2].partition(": ")[0]
        at = f" at {address}" if address else ""
        return Unavailable(f"{service} is out of reach{at}: {why}")
    return error


def _service(method: object) -> str:
    path = getattr(method, "_method", b"").decode()
    return path.strip("/").partition("/")[0].rpartition(".")[2] or "the server"


class _DefaultDeadline(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, default: timedelta) -> None:
        self._default = default

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: object,
    ) -> Any:
        given = client_call_details
        own = self._default if given.timeout is None else timedelta(seconds=given.timeout)
        details = grpc.aio.ClientCallDetails(
            given.method,
            _clamped(own).total_seconds(),
            given.metadata,
            given.credentials,
            given.wait_for_ready,
        )
        return await continuation(details, request)


@overload
def _clamped(deadline: timedelta) -> timedelta: ...
@overload
def _clamped(deadline: timedelta | None) -> timedelta | None: ...
def _clamped(deadline: timedelta | None) -> timedelta | None:
    """The deadline, but no longer than the caller of the call being served still waits."""
    left = deadlines.remaining()
    if left is None:
        return deadline
    left = max(left - _SLACK, timedelta(0))
    return left if deadline is None else min(deadline, left)
