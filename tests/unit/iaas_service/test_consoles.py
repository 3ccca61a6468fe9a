"""Consoles: bounded, cleaned, and never in the way of the VMs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from iaas_service import consoles
from iaas_service.domain import Vm, VmId
from iaas_service.drivers.simulated import SimulatedCloud, SimulatedOptions
from iaas_service.drivers.simulated.options import Lack
from iaas_service.providers import Provider
from iaas_service.testing import SUITE_ID, an_order
from vmshepherd_kit.clock import SeededChance
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import BadRequest, NotFound, ShepherdError, Unavailable
from vmshepherd_kit.testing import FakeClock

NOWHERE = Path("/nowhere")
LONG = timedelta(seconds=60)
Answer = Callable[[Vm, int], Awaitable[str]]


class Telling(SimulatedCloud):
    """A cloud whose consoles are what a test says."""

    answer: Answer

    async def console(self, vm: Vm, lines: int) -> str:
        return await self.answer(vm, lines)


def cloud(answer: Answer, *, lacks: frozenset[Lack] = frozenset()) -> Telling:
    telling = Telling(
        SimulatedOptions(lacks=lacks),
        provider="sim",
        suite=Suite(suite_id=SUITE_ID, state_dir=NOWHERE, base_dir=NOWHERE, embedded=False),
        clock=FakeClock(),
        chance=SeededChance(1),
    )
    telling.answer = answer
    return telling


async def says(vm: Vm, lines: int) -> str:
    return f"I am {vm.vm_id}"


async def read(
    telling: Telling, found: Sequence[Vm | ShepherdError], *, lines: int = 5, left: timedelta = LONG
) -> dict[VmId, str]:
    provider = Provider.of("sim", "simulated", telling, suite_id=SUITE_ID)
    return dict(await consoles.read(provider, found, lines=lines, left=left))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patience with consoles is over at once, however much time is left."""
    monkeypatch.setattr(consoles, "_PATIENCE", timedelta(milliseconds=20))


async def test_each_vm_that_is_there_has_its_own() -> None:
    telling = cloud(says)
    one, two = await telling.create(an_order()), await telling.create(an_order())
    told = await read(telling, [one, NotFound("gone"), two])
    assert told == {vm.vm_id: f"I am {vm.vm_id}" for vm in (one, two)}


async def test_nobody_is_asked_for_none() -> None:
    async def never(vm: Vm, lines: int) -> str:
        raise AssertionError("it was asked")

    telling = cloud(never)
    assert await read(telling, [await telling.create(an_order())], lines=0) == {}


async def test_a_driver_without_the_trait_is_not_asked() -> None:
    telling = cloud(says, lacks=frozenset({Lack.CONSOLE}))
    assert await read(telling, [await telling.create(an_order())]) == {}


async def test_a_slow_console_is_empty_and_the_others_are_told(hasty: None) -> None:
    async def slow_for_one(vm: Vm, lines: int) -> str:
        if vm == one:
            await asyncio.Event().wait()
        return "here"

    telling = cloud(slow_for_one)
    one, two = await telling.create(an_order()), await telling.create(an_order())
    async with asyncio.timeout(1):
        assert await read(telling, [one, two]) == {one.vm_id: "", two.vm_id: "here"}


async def test_a_console_that_heeds_no_cancellation_holds_up_nobody(hasty: None) -> None:
    end = asyncio.Event()

    async def stubborn(vm: Vm, lines: int) -> str:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        raise Unavailable("too late")

    telling = cloud(stubborn)
    vm = await telling.create(an_order())
    async with asyncio.timeout(1):
        assert await read(telling, [vm]) == {vm.vm_id: ""}
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    end.set()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    gc.collect()
    assert logged == [], "asyncio tells of errors that nobody has taken, words and all"


async def test_no_console_is_waited_for_beyond_the_callers_time() -> None:
    async def never(vm: Vm, lines: int) -> str:
        await asyncio.Event().wait()
        return "it was waited for"

    telling = cloud(never)
    vm = await telling.create(an_order())
    async with asyncio.timeout(1):
        assert await read(telling, [vm], left=timedelta(0)) == {vm.vm_id: ""}


@pytest.mark.parametrize("error", [Unavailable("password=hunter2"), ValueError("hunter2")])
async def test_a_console_that_fails_is_empty_and_its_words_are_in_no_log(error: Exception) -> None:
    async def fails(vm: Vm, lines: int) -> str:
        raise error

    telling = cloud(fails)
    vm = await telling.create(an_order())
    with capture_logs() as logs:
        assert await read(telling, [vm]) == {vm.vm_id: ""}
    assert [entry["why"] for entry in logs] == [type(error).__name__]
    assert "hunter2" not in str(logs)


async def test_what_a_console_says_is_in_no_log() -> None:
    telling = cloud(says)
    vm = await telling.create(an_order())
    with capture_logs() as logs:
        assert "I am" in (await read(telling, [vm]))[vm.vm_id]
    assert "I am" not in str(logs)


async def test_of_very_many_vms_the_first_64_are_told() -> None:
    telling = cloud(says)
    vms = [await telling.create(an_order()) for _ in range(70)]
    assert list(await read(telling, vms)) == [vm.vm_id for vm in vms[:64]]


@pytest.mark.parametrize("lines", [-1, 201, 2**31 - 1])
def test_a_number_of_lines_that_nobody_shows_is_refused(lines: int) -> None:
    with pytest.raises(BadRequest) as refusal:
        consoles.require_lines(lines)
    assert [violation.field for violation in refusal.value.violations] == ["console_lines"]


@pytest.mark.parametrize("lines", [0, 1, 200])
def test_other_numbers_are_not(lines: int) -> None:
    consoles.require_lines(lines)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one\ntwo\nthree\n", "two\nthree"),
        ("one\r\ntwo\r\n\r\n", "one\ntwo"),
        ("\x1b[31;1mred\x1b[0m alert", "red alert"),
        ("\x1b]0;a title\x07text", "text"),
        ("bell\x07 null\x00 back\x08", "bell null back"),
        ("name\tstate", "name state"),
        ("turned \u202eround\u202c", "turned round"),
        ("half \ud800 a pair", "half  a pair"),
        ("Grüße, 世界 🐑", "Grüße, 世界 🐑"),
        ("", ""),
    ],
)
def test_what_is_shown_is_fit_for_a_terminal(said: str, shown: str) -> None:
    assert consoles.shown(said, 2) == shown


def test_the_newest_whole_lines_that_fit_are_shown() -> None:
    said = "\n".join(f"line {number:04} " + "é" * 40 for number in range(1000))
    shown = consoles.shown(said, 200)
    assert 15_000 < len(shown.encode()) <= 16 * 1024
    assert said.endswith(shown)
    assert shown.startswith("line ")


def test_of_one_endless_line_the_end_is_shown() -> None:
    shown = consoles.shown("é" * 100_000 + "!", 1)
    assert shown.endswith("é!")
    assert 16 * 1024 - 2 <= len(shown.encode()) <= 16 * 1024


@given(st.text(st.characters(), max_size=400), st.integers(1, 200))
def test_whatever_is_said_can_be_shown(said: str, lines: int) -> None:
    shown = consoles.shown(said, lines)
    assert shown.encode().decode() == shown
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert shown.count("\n") < lines
