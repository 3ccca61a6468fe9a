"""Questions to the orchestrator: one connection a command, pages merged, errors as sentences.

The commands call `answer` with what they want to know; nothing here prints an answer.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

import grpc

from admin import failures, interrupts
from admin.options import Asking, fail
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import VmStatus
from vmshepherd.runtime.v1.event_pb2 import Event, EventFilter
from vmshepherd_kit import dial
from vmshepherd_kit.errors import ShepherdError

T = TypeVar("T")

LARGEST_PAGE: Final = 1000


class PageRequest(Protocol):
    """A request of a List method."""

    page_size: int
    page_token: str


class PageResponse(Protocol):
    """An answer of a List method."""

    next_page_token: str


Request = TypeVar("Request", bound=PageRequest)
Response = TypeVar("Response", bound=PageResponse)


def answer(asking: Asking, question: Callable[[OrchestratorServiceStub], Awaitable[T]]) -> T:
    """What the orchestrator answers; what goes wrong is said, and ends the command."""

    async def ask() -> T:
        async with dial.channel(asking.address) as channel:
            return await question(OrchestratorServiceStub(channel))

    try:
        return interrupts.run(ask())
    except ShepherdError as e:
        raise fail(failures.sentence(e, asking.address), failures.exit_code(e)) from e


async def pages(
    method: Callable[..., grpc.aio.UnaryUnaryCall[Request, Response]], request: Request
) -> AsyncIterator[Response]:
    """The pages of a List method, from the first to the last."""
    request.page_size = request.page_size or LARGEST_PAGE
    while True:
        page = await dial.ask(method, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def list_presets(stub: OrchestratorServiceStub) -> api.ListPresetsResponse:
    """Every preset, as one answer."""
    whole = api.ListPresetsResponse()
    async for page in pages(stub.ListPresets, api.ListPresetsRequest()):
        whole.presets.extend(page.presets)
        # Each page repeats them.
        del whole.source_errors[:]
        whole.source_errors.extend(page.source_errors)
    return whole


async def list_vms(
    stub: OrchestratorServiceStub, *, preset: str = "", statuses: Sequence[VmStatus.ValueType] = ()
) -> api.ListVmsResponse:
    """Every VM that is meant, as one answer."""
    whole = api.ListVmsResponse()
    async for page in pages(stub.ListVms, api.ListVmsRequest(preset=preset, statuses=statuses)):
        whole.vms.extend(page.vms)
    return whole


async def list_events(
    stub: OrchestratorServiceStub, chosen: EventFilter, *, limit: int
) -> api.ListEventsResponse:
    """The newest events that are meant, oldest first."""
    newest: list[Event] = []
    request = api.ListEventsRequest(filter=chosen, page_size=min(limit, LARGEST_PAGE))
    async for page in pages(stub.ListEvents, request):
        newest.extend(page.events)
        if len(newest) >= limit:
            break
    return api.ListEventsResponse(events=reversed(newest[:limit]))


def actor() -> str:
    """Who asks: the login name, as the journal will have it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A user without an entry, as in a container with a bare uid.
        return f"uid {os.getuid()}"
