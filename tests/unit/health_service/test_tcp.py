from __future__ import annotations

from typing import Any

import pytest

from health_service.domain import Reason, Result, Verdict
from health_service.drivers.tcp import TcpCheck
from health_service.testing import HEALTHY, accepting, aims, probed, tools
from vmshepherd_kit import settings


async def asked(port: int, **options: Any) -> Result:
    check = TcpCheck(tools())
    return (await probed(check, {"port": port, **options}, aims(HEALTHY)))["vm-0"]


async def test_a_connection_is_enough_when_nothing_is_expected() -> None:
    async with accepting(HEALTHY) as port:
        result = await asked(port)
    assert result.verdict is Verdict.HEALTHY
    assert result.message == f"tcp {HEALTHY}:{port}: connected"


async def test_what_is_sent_and_what_is_expected() -> None:
    async with accepting(HEALTHY, says=b"+PONG\r\n") as port:
        assert (await asked(port, send="PING\r\n", expect="PONG")).verdict is Verdict.HEALTHY
        other = await asked(port, send="PING\r\n", expect="READY")
    assert (other.verdict, other.reason) == (Verdict.UNHEALTHY, Reason.BODY)


async def test_endless_words_are_cut() -> None:
    async with accepting(HEALTHY, says=b"x" * 1_000_000) as port:
        result = await asked(port, send="?", expect="READY", timeout=30)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.BODY)
    assert "64 KiB" in result.message


async def test_silence_after_the_connection_ends_with_the_time() -> None:
    async with accepting(HEALTHY) as port:
        result = await asked(port, expect="READY", timeout=0.1)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.TIMEOUT)
    assert not result.silent


def test_the_port_has_no_default() -> None:
    with pytest.raises(settings.Invalid) as refused:
        settings.parse({}, TcpCheck.options)
    assert str(refused.value) == "port: is required"
