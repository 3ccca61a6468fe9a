"""Wrapping RPC handlers: one guard for all four arities, for whoever writes a server interceptor.

A guard is an async context manager around the whole life of one call, its request's parsing
included.  Generators become coroutines that write, so that a generator is closed at the very
moment its call ends, not when it is collected.  The inner handler never sees the guard, and the
guard never sees a message.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Context = grpc.aio.ServicerContext[Any, Any]
    Behaviour = Callable[..., Any]
    Guard = Callable[[Context], AbstractAsyncContextManager[None]]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


_LAST_WRITE: Final = timedelta(seconds=1)


def guarded(
    handler: Handler,
    guard: Guard,
    *,
    parse: Callable[[bytes], Any] | None = None,
) -> Handler:
    """The same handler, run inside `guard`.

    With `parse`, a single request reaches us as bytes and is parsed inside the guard too; a
    stream of requests keeps its deserialiser, which `parse` replaces: it runs where the handler
    reads, so its errors pass through the guard as well.
    """
    behaviour = _behaviour(handler)
    wrap = _answering_stream if handler.response_streaming else _answering_once
    if parse is None:
        return _made(handler, wrap(behaviour, guard, _same), handler.request_deserializer)
    if handler.request_streaming:
        return _made(handler, wrap(behaviour, guard, _same), parse)
    return _made(handler, wrap(behaviour, guard, parse), None)


def _answering_once(behaviour: Behaviour, guard: Guard, parse: Behaviour) -> Behaviour:
    async def call(request: object, context: Context) -> object:
        async with guard(context):
            return await behaviour(parse(request), context)

    return call


def _answering_stream(behaviour: Behaviour, guard: Guard, parse: Behaviour) -> Behaviour:
    async def call(request: object, context: Context) -> None:
        async with guard(context):
            if inspect.iscoroutinefunction(behaviour):
                await behaviour(parse(request), context)
                return
            messages: AsyncGenerator[Any, None] = behaviour(parse(request), context)
            async with aclosing(messages) as stream:
                async for message in stream:
                    await _write(message, context)

    return call


async def _write(message: object, context: Context) -> None:
    """Send one message whole, also when the call is ended meanwhile.

    gRPC takes no status while a message is on its way, and the client would wait for one for ever.
    """
    writing = asyncio.ensure_future(context.write(message))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        # A reader that has stopped reading is not waited for.
        done, _ = await asyncio.wait({writing}, timeout=_LAST_WRITE.total_seconds())
        for each in done:
            each.exception()
        writing.cancel()
        raise


def _same(request: object) -> object:
    return request


def _behaviour(handler: Handler) -> Behaviour:
    by_arity = (
        handler.unary_unary,
        handler.unary_stream,
        handler.stream_unary,
        handler.stream_stream,
    )
    return next(behaviour for behaviour in by_arity if behaviour is not None)


def _made(handler: Handler, behaviour: Behaviour, deserializer: Behaviour | None) -> Handler:
    makers: dict[tuple[bool, bool], Callable[..., Handler]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = makers[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(
        behaviour,
        request_deserializer=deserializer,
        response_serializer=handler.response_serializer,
    )
