from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from health_service.domain import Aim, Reason, Result, Verdict
from health_service.lag import Lag
from health_service.pace import Pace
from health_service.port import Tools
from health_service.probing import NoAnswer, Unfit, probe_each
from health_service.testing import aims, tools
from vmshepherd_kit.testing import FakeClock


class Scripted:
    """Attempts that end as a function of the target says."""

    patience = timedelta(seconds=2)

    def __init__(self, act: Callable[[str], None]) -> None:
        self._act = act

    def label(self, aim: Aim) -> str:
        return f"poke {aim.address}"

    async def attempt(self, aim: Aim) -> str:
        self._act(str(aim.target_id))
        return "fine"


def raising(error: Exception | None) -> Callable[[str], None]:
    def act(_: str) -> None:
        if error:
            raise error

    return act


async def one(act: Callable[[str], None], lent: Tools | None = None) -> Result:
    results: list[Result] = []
    await probe_each(Scripted(act), lent or tools(), aims("10.0.0.1"), results.append)
    (result,) = results
    return result


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


async def test_an_answer_as_expected_is_healthy() -> None:
    result = await one(raising(None))
    assert (result.verdict, result.reason) == (Verdict.HEALTHY, Reason.OK)
    assert result.message == "poke 10.0.0.1: fine"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unfit(Reason.STATUS, "500"), Reason.STATUS),
        (os_error(errno.ECONNREFUSED), Reason.REFUSED),
        (os_error(errno.ECONNRESET), Reason.RESET),
        (ConnectionResetError("hung up"), Reason.RESET),
        (os_error(errno.EHOSTUNREACH), Reason.UNREACHABLE),
        (os_error(errno.ETIMEDOUT), Reason.TIMEOUT),
        (NoAnswer(), Reason.TIMEOUT),
        (TimeoutError(), Reason.TIMEOUT),
        (ssl.SSLError(1, "wrong version"), Reason.TLS),
        (ssl.SSLCertVerificationError(1, "self-signed"), Reason.TLS),
    ],
)
async def test_what_the_vm_did_is_unhealthy(error: Exception, reason: str) -> None:
    result = await one(raising(error))
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, reason)


@pytest.mark.parametrize(
    "number",
    [
        errno.EMFILE,
        errno.ENFILE,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,
        errno.EAFNOSUPPORT,
    ],
)
async def test_what_we_could_not_do_says_nothing_about_the_vm(number: int) -> None:
    result = await one(raising(os_error(number)))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.LOCAL)
    assert os.strerror(number) in result.message


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (NoAnswer(), True),
        (os_error(errno.EHOSTUNREACH), True),
        (TimeoutError(), False),
        (os_error(errno.ECONNREFUSED), False),
        (Unfit(Reason.STATUS, "500"), False),
        (None, False),
    ],
)
async def test_silence_is_told_from_an_answer_that_was_wrong(
    error: Exception | None, *, silent: bool
) -> None:
    assert (await one(raising(error))).silent is silent


async def test_a_bug_at_one_target_leaves_the_others_alone() -> None:
    def act(target_id: str) -> None:
        if target_id == "vm-1":
            raise ZeroDivisionError

    results: list[Result] = []
    await probe_each(Scripted(act), tools(), aims(*["10.0.0.1"] * 4), results.append)
    verdicts = {str(result.target_id): result.verdict for result in results}
    assert verdicts.pop("vm-1") is Verdict.UNKNOWN
    assert list(verdicts.values()) == [Verdict.HEALTHY] * 3


def on_a_fake_clock() -> tuple[FakeClock, Tools]:
    clock = FakeClock()
    pace = Pace(clock, concurrency=10, starts_per_second=1000)
    return clock, replace(tools(), clock=clock, pace=pace, lag=Lag(clock))


@pytest.mark.parametrize(
    "error", [NoAnswer(), TimeoutError(), ConnectionResetError(errno.ECONNRESET, "reset")]
)
async def test_a_timeout_while_we_stood_still_ourselves_is_unknown(error: Exception) -> None:
    clock, lent = on_a_fake_clock()

    def stall(_: str) -> None:
        clock._move_to(clock.elapsed() + timedelta(seconds=1))
        raise error

    with lent.lag.watched():
        result = await one(stall, lent)
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.LATE)


async def test_a_wrong_answer_stays_wrong_though_we_stood_still() -> None:
    clock, lent = on_a_fake_clock()

    def stall(_: str) -> None:
        clock._move_to(clock.elapsed() + timedelta(seconds=1))
        raise Unfit(Reason.STATUS, "500, expected 200")

    with lent.lag.watched():
        result = await one(stall, lent)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.STATUS)


async def test_a_probe_that_begins_too_late_is_not_made() -> None:
    clock, lent = on_a_fake_clock()
    attempted: list[str] = []
    results: list[Result] = []
    work = asyncio.create_task(
        probe_each(Scripted(attempted.append), lent, aims("10.0.0.1"), results.append)
    )
    asyncio.get_running_loop().call_soon(
        lambda: clock._move_to(clock.elapsed() + timedelta(seconds=1.5))
    )
    await work
    assert attempted == []
    assert (results[0].verdict, results[0].reason) == (Verdict.UNKNOWN, Reason.LATE)


async def test_the_latency_is_the_time_between() -> None:
    clock, lent = on_a_fake_clock()
    result = await one(lambda _: clock._move_to(clock.elapsed() + timedelta(milliseconds=30)), lent)
    assert result.latency == timedelta(milliseconds=30)
