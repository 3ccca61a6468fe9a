"""What a container's health check learns from a server, over real connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from vmshepherd_kit import probe, serve
from vmshepherd_kit.serve import Listen


@pytest.fixture
async def server() -> AsyncIterator[serve.Server]:
    async with serve.running([], Listen(address="127.0.0.1:0")) as server:
        yield server


async def ask(address: str, *, service: str = "") -> None:
    await asyncio.to_thread(probe.ask, address, service=service)


async def test_a_server_that_serves_passes(server: serve.Server) -> None:
    await ask(server.address)
    await ask(server.address, service="readiness")


async def test_a_server_that_drains_fails_and_yet_is_alive(server: serve.Server) -> None:
    server.health.ready(False)
    with pytest.raises(probe.NotServing):
        await ask(server.address)
    await ask(server.address, service="liveness")


async def test_a_service_that_is_not_served_there_fails(server: serve.Server) -> None:
    with pytest.raises(probe.NotServing):
        await ask(server.address, service="vmshepherd.nothing.v1.Nothing")


async def test_many_probes_leave_the_server_as_it_was(server: serve.Server) -> None:
    await asyncio.gather(*(ask(server.address) for _ in range(50)))
    await ask(server.address)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\4\0\0\0\0\0",  # settings, and then the end
        b"\0\0\x08\7\0\0\0\0\0" + bytes(8),  # GOAWAY
    ],
)
async def test_whoever_is_no_grpc_server_fails(answer: bytes) -> None:
    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises((probe.NotServing, OSError)):
            await ask(f"127.0.0.1:{port}")


def test_a_server_that_is_silent_fails_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert probe.main([address, "--timeout", "0.05"]) == 1
    assert capsys.readouterr().err == f"{address}: timed out\n"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "127.0.0.1:port"])
def test_where_nobody_can_be_asked_one_line_says_so(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main([address]) == 1
    assert capsys.readouterr().err.count("\n") == 1
