from __future__ import annotations

from health_service.control import OwnControl, Place, listening
from health_service.drivers.dummy import DummyCheck
from health_service.drivers.http import HttpCheck
from health_service.drivers.tcp import TcpCheck
from health_service.port import Check
from health_service.testing import ABSENT, HEALTHY, accepting, no_files_left, tools


def control(port: int, *places: Place) -> OwnControl:
    lent = tools()
    checks: dict[str, Check] = {
        "http": HttpCheck(lent),
        "tcp": TcpCheck(lent),
        "dummy": DummyCheck(lent),
    }
    return OwnControl(port, checks, tcp=TcpCheck(lent), places=places)


async def test_it_passes_when_our_own_listener_answers() -> None:
    async with listening() as port:
        ours = control(port)
        assert [await ours.why_failed(name) for name in ("http", "tcp", "dummy")] == ["", "", ""]
        assert not ours.proves_network


async def test_it_fails_when_our_own_listener_cannot_be_reached() -> None:
    async with listening() as port:
        pass
    assert "its own listener" in await control(port).why_failed("http")


async def test_it_fails_when_file_descriptors_are_used_up() -> None:
    async with listening() as port:
        ours = control(port)
        with no_files_left():
            assert "Too many open files" in await ours.why_failed("http")


async def test_one_of_the_named_places_is_enough() -> None:
    async with listening() as port, accepting(HEALTHY, port):
        ours = control(port, Place(ABSENT, port), Place(HEALTHY, port))
        assert await ours.why_failed("http") == ""
        assert ours.proves_network


async def test_it_fails_when_no_named_place_answers() -> None:
    async with listening() as port:
        why = await control(port, Place(ABSENT, port)).why_failed("http")
    assert why.startswith("no control target answers: ")
    assert ABSENT in why
