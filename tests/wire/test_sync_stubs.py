"""The admin API as other languages see it: through blocking stubs, from threads of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.suite import Replica, place
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2_grpc as api_grpc


class SuiteInAThread:
    """The suite on a loop of its own; to the plugin, a server like any other."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stack = AsyncExitStack()
        self._thread.start()

    def start(self, folder: Path) -> str:
        return str(asyncio.run_coroutine_threadsafe(self._start(folder), self._loop).result(30))

    async def _start(self, folder: Path) -> str:
        here = await self._stack.enter_async_context(place(folder))
        here.declare(count=2)
        replica: Replica = await here.replica()
        await replica.settled()
        return replica.running.address

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


# The plugin makes a server of threads, to which it adds a blocking servicer. Ours are coroutines:
# its fixtures for the server are replaced, those for the client are used as they are.
@pytest.fixture(scope="module")
def _grpc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    suite = SuiteInAThread()
    try:
        yield suite.start(tmp_path_factory.mktemp("suite"))
    finally:
        suite.stop()


@pytest.fixture(scope="module")
def grpc_server(_grpc_server: str) -> str:
    return _grpc_server


@pytest.fixture(scope="module")
def grpc_addr(_grpc_server: str) -> str:
    return _grpc_server


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[api_grpc.OrchestratorServiceStub]:
    return api_grpc.OrchestratorServiceStub


def test_presets_and_their_vms_are_shown(grpc_stub: Any) -> None:
    [preset] = grpc_stub.ListPresets(api.ListPresetsRequest(), timeout=10).presets
    assert preset.name == "web"
    answer = grpc_stub.GetPreset(api.GetPresetRequest(preset="web"), timeout=10)
    assert len(answer.vms) == 2


def test_an_error_has_a_code_and_a_sentence(grpc_stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub.GetPreset(api.GetPresetRequest(preset="wbe"), timeout=10)
    failure: Any = caught.value
    assert failure.code() is grpc.StatusCode.NOT_FOUND
    assert "did you mean 'web'" in failure.details()


def test_events_are_read_as_a_stream_and_left_early(grpc_stub: Any) -> None:
    stream = grpc_stub.WatchEvents(api.WatchEventsRequest(after_sequence=0), timeout=10)
    chunk = next(each for each in stream if each.events)
    stream.cancel()
    assert {event.preset for event in chunk.events} == {"web"}


def test_work_is_paused_and_resumed(grpc_stub: Any) -> None:
    asked = api.PausePresetRequest(preset="web", actor="anna", reason="a trial")
    assert grpc_stub.PausePreset(asked, timeout=10).pause.actor == "anna"
    resumed = grpc_stub.ResumePreset(
        api.ResumePresetRequest(preset="web", actor="anna"), timeout=10
    )
    assert resumed.was_paused
