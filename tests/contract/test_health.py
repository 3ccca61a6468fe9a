"""The checks of the suite, each run through the contract of checks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from health_service.drivers.dummy import DummyCheck
from health_service.drivers.http import HttpCheck
from health_service.drivers.tcp import TcpCheck
from health_service.testing import CheckContract, NetworkCheckContract, Subject, accepting

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@asynccontextmanager
async def nowhere(address: str) -> AsyncIterator[int]:
    yield 80


@asynccontextmanager
async def speaking_http(address: str) -> AsyncIterator[int]:
    async with accepting(address, says=OK) as port:
        yield port


class TestDummy(CheckContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(check=DummyCheck, healthy=nowhere, options=lambda _: {})


class TestTcp(NetworkCheckContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(
            check=TcpCheck,
            healthy=speaking_http,
            options=lambda port: {
                "port": port,
                "timeout": 0.5,
                "send": "GET / HTTP/1.0\r\n\r\n",
                "expect": "HTTP/1.1 200",
            },
        )


class TestHttp(NetworkCheckContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(
            check=HttpCheck,
            healthy=speaking_http,
            options=lambda port: {"port": port, "body": "hello", "read_timeout": 0.5},
        )
