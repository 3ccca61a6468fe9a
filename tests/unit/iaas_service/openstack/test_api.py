"""What the answers of a service mean for the calls that follow: its clock, and its rest."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from iaas_service.drivers.openstack.api import Api
from iaas_service.drivers.openstack.failures import Answer
from iaas_service.drivers.openstack.places import Place
from iaas_service.drivers.openstack.wire import Wire
from tests.unit.iaas_service.openstack.bare import listening
from vmshepherd_kit.errors import Throttled
from vmshepherd_kit.testing import FakeClock


class Nova:
    """Answers each call as it is told to."""

    def __init__(self, clock: FakeClock) -> None:
        self.answer = Answer(status=200, body=b"{}")
        login = SimpleNamespace(access=self._access, ahead=timedelta(minutes=7))
        self.api = Api(
            Place(),
            provider="osk",
            login=cast("Any", login),
            wire=cast("Any", self),
            clock=clock,
        )

    async def send(self, *_: object, **__: object) -> Answer:
        return self.answer

    async def _access(self) -> Any:
        return SimpleNamespace(token="t", endpoints={"compute": "http://nova"})


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(0), timedelta(hours=-1)])
async def test_a_rest_until_a_date_is_measured_by_the_clock_of_the_cloud(ahead: timedelta) -> None:
    clock = FakeClock()
    nova = Nova(clock)
    there = clock.wall() + ahead
    nova.answer = Answer(
        status=429,
        headers={"Date": date(there), "Retry-After": date(there + timedelta(seconds=20))},
    )
    with pytest.raises(Throttled) as told:
        await nova.api.get("compute", "/servers")
    assert told.value.retry_after == timedelta(seconds=20)
    with pytest.raises(Throttled) as told:
        await nova.api.get("compute", "/servers")
    assert told.value.reason == "HELD_BACK"
    assert told.value.retry_after == timedelta(seconds=20)


async def test_the_clock_of_a_cloud_whose_services_tell_no_date_is_known_by_its_token() -> None:
    clock = FakeClock()
    nova = Nova(clock)
    await nova.api.get("compute", "/servers")
    assert nova.api.now() == clock.wall() + timedelta(minutes=7)
    nova.answer = Answer(status=200, headers={"Date": date(clock.wall())}, body=b"{}")
    await nova.api.get("compute", "/servers")
    assert nova.api.now() == clock.wall()


def date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


@pytest.fixture
async def heard() -> AsyncIterator[tuple[Wire, str, list[bytes]]]:
    """A wire, an address, and what arrives there."""
    bodies: list[bytes] = []

    async def serve(reader: Any, writer: Any) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        bodies.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    wire = Wire(connections=1, timeout=timedelta(seconds=5), context=ssl.create_default_context())
    async with listening(serve) as port, wire:
        yield wire, f"http://127.0.0.1:{port}/servers", bodies


async def test_letters_take_no_more_of_an_order_than_they_are_long(
    heard: tuple[Wire, str, list[bytes]],
) -> None:
    wire, url, bodies = heard
    await wire.send("POST", url, headers={}, params={}, body={"ä": "東京"}, is_order=True)
    assert bodies == ['{"ä": "東京"}'.encode()]
