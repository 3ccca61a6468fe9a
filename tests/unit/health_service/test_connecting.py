from __future__ import annotations

import socket
from typing import Any

import pytest

from health_service.domain import Reason, Verdict
from health_service.drivers.tcp import TcpCheck
from health_service.testing import ABSENT, aims, probed, tools


async def test_a_connection_that_meets_itself_is_a_refused_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On loopback, the kernel may choose for us the very port that we connect to."""

    class Narcissus(socket.socket):
        def connect(self, address: Any) -> None:
            self.bind(address)
            super().connect(address)

    with socket.socket() as free:
        free.bind((ABSENT, 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("health_service.connecting.socket.socket", Narcissus)
    result = (await probed(TcpCheck(tools()), {"port": port}, aims(ABSENT)))["vm-0"]
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.REFUSED)
