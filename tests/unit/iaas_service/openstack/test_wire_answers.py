"""What is made of answers that no cloud should give; a bare server speaks the bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from iaas_service.drivers.openstack.wire import NoAnswerError, NotSentError, Wire
from tests.unit.iaas_service.openstack.bare import listening

REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
COOKIE = b"HTTP/1.1 200 OK\r\nSet-Cookie: node=7; Path=/\r\nContent-Length: 2\r\n\r\n{}"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}"


class Cloud:
    """Says always the same, and keeps what it was asked; b"" is nothing at all."""

    def __init__(self) -> None:
        self.answer = b""
        self.hangs_up = False
        self.asked: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self.hangs_up or not self.asked:
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(self.answer)


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    cloud = Cloud()
    async with listening(cloud.serve) as port:
        # By a name: cookies are kept for names alone.
        cloud.url = f"http://localhost:{port}/servers"
        yield cloud


def wire(*, timeout: timedelta = timedelta(seconds=60)) -> Wire:
    return Wire(connections=1, timeout=timeout, context=ssl.create_default_context())


async def test_a_redirect_is_not_followed_with_the_token(cloud: Cloud) -> None:
    cloud.answer = REDIRECT
    async with wire() as client:
        answer = await client.send("GET", cloud.url, headers={"X-Auth-Token": "t"}, params={})
    assert answer.status == 302
    assert len(cloud.asked) == 1


async def test_a_cookie_is_not_sent_back(cloud: Cloud) -> None:
    cloud.answer = COOKIE
    async with wire() as client:
        for _ in range(2):
            await client.send("GET", cloud.url, headers={}, params={})
    assert not any("cookie" in request.lower() for request in cloud.asked)


async def test_what_nobody_answers_in_time_may_have_been_done(cloud: Cloud) -> None:
    async with wire(timeout=timedelta(milliseconds=300)) as client:
        with pytest.raises(NoAnswerError, match="did not answer within"):
            await client.send("POST", cloud.url, headers={}, params={}, body={})
    assert len(cloud.asked) == 1


@pytest.mark.parametrize("answer", [b"", HALF])
async def test_a_connection_that_ends_too_early_may_have_done_it(
    cloud: Cloud, answer: bytes
) -> None:
    cloud.answer, cloud.hangs_up = answer, True
    async with wire() as client:
        with pytest.raises(NoAnswerError):
            await client.send("POST", cloud.url, headers={}, params={})


async def test_an_endpoint_that_is_no_url_was_never_asked() -> None:
    async with wire() as client:
        with pytest.raises(NotSentError, match="no URL"):
            await client.send("GET", "http://[not-an-address/servers", headers={}, params={})


async def test_a_call_that_failed_leaves_its_turn_to_the_next(cloud: Cloud) -> None:
    async with wire(timeout=timedelta(milliseconds=300)) as client:
        for _ in range(3):
            with pytest.raises(NoAnswerError):
                await client.send("GET", cloud.url, headers={}, params={})
    assert len(cloud.asked) == 3
