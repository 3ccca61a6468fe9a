"""The prober with a scripted check and a scripted control."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

import pytest

from health_service.addresses import AddressOptions, Rules
from health_service.domain import Aim, Reason, Result, Summary, Target, TargetId, Verdict
from health_service.lag import Lag
from health_service.port import Probe, Report, Tools, Trait
from health_service.prober import Limits, Prober
from health_service.testing import tools
from vmshepherd_kit import settings
from vmshepherd_kit.errors import NotFound, Throttled
from vmshepherd_kit.settings import Settings
from vmshepherd_kit.testing import FakeClock

Act = Callable[[Sequence[Aim], Report], Awaitable[None]]


class ScriptedCheck:
    summary: ClassVar[str] = "What the script says."
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.NETWORK})
    options: ClassVar[type[Settings]] = AddressOptions

    def __init__(self, lent: Tools, act: Act | None = None) -> None:
        self._act = act

    async def prepare(self, options: Any) -> Probe:
        assert self._act
        return self._act

    def control_options(self, port: int) -> Mapping[str, Any] | None:
        return None

    async def close(self) -> None: ...


class OfflineCheck(ScriptedCheck):
    traits: ClassVar[frozenset[Trait]] = frozenset()


class ScriptedControl:
    """Fails from its nth run on."""

    def __init__(self, *, fails_from: int = 1000, proves_network: bool = False) -> None:
        self.proves_network = proves_network
        self.runs = 0
        self._fails_from = fails_from

    async def why_failed(self, driver: str) -> str:
        self.runs += 1
        return "the network is gone" if self.runs >= self._fails_from else ""


def prober(
    act: Act,
    *,
    control: ScriptedControl | None = None,
    requests: int = 8,
    suspect_silence: int = 3,
    kind: type[ScriptedCheck] = ScriptedCheck,
) -> Prober:
    return Prober(
        {"scripted": kind(tools(), act)},
        control=control or ScriptedControl(),
        rules=Rules(),
        limits=Limits(requests=requests, suspect_silence=suspect_silence),
        lag=Lag(FakeClock()),
        prober_id="life-1",
    )


def targets(count: int) -> list[Target]:
    return [Target(TargetId(f"vm-{n}"), ("10.0.0.1",)) for n in range(count)]


async def run(
    subject: Prober, wanted: Sequence[Target], options: Mapping[str, Any] | None = None
) -> tuple[dict[str, Result], Summary]:
    results: dict[str, Result] = {}
    async with asyncio.timeout(10), aclosing(subject.probe("scripted", options or {}, wanted)) as p:
        async for part in p:
            if isinstance(part, Summary):
                return results, part
            assert 0 < len(part) <= 500
            for result in part:
                assert str(result.target_id) not in results
                results[str(result.target_id)] = result
    raise AssertionError("no summary came")


def saying(*verdicts: Verdict, reason: str = "SCRIPT", silent: bool = False) -> Act:
    """The nth aim gets the nth verdict."""

    async def act(aims: Sequence[Aim], report: Report) -> None:
        for aim, verdict in zip(aims, verdicts, strict=True):
            report(Result(aim.target_id, verdict, reason, "as scripted", silent=silent))

    return act


HEALTHY, UNHEALTHY, UNKNOWN = Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.UNKNOWN


async def test_results_come_first_and_the_summary_counts_them() -> None:
    results, summary = await run(prober(saying(HEALTHY, UNHEALTHY, UNHEALTHY, UNKNOWN)), targets(4))
    assert [result.verdict for result in results.values()] == [
        HEALTHY,
        UNHEALTHY,
        UNHEALTHY,
        UNKNOWN,
    ]
    assert (summary.healthy, summary.unhealthy, summary.unknown) == (1, 2, 1)
    assert summary.control_passed
    assert summary.control_message == ""
    assert summary.prober_id == "life-1"


async def test_many_results_come_in_chunks_and_none_is_lost() -> None:
    results, summary = await run(prober(saying(*[HEALTHY] * 1234)), targets(1234))
    assert len(results) == summary.healthy == 1234


async def test_no_targets_have_a_summary() -> None:
    results, summary = await run(prober(saying()), [])
    assert results == {}
    assert summary.control_passed


@pytest.mark.parametrize("fails_from", [1, 2])
async def test_a_control_that_fails_before_or_after_makes_unhealthy_unknown(
    fails_from: int,
) -> None:
    control = ScriptedControl(fails_from=fails_from)
    results, summary = await run(prober(saying(HEALTHY, UNHEALTHY), control=control), targets(2))
    assert results["vm-0"].verdict is HEALTHY
    assert results["vm-1"].verdict is UNKNOWN
    assert results["vm-1"].reason == Reason.CONTROL
    assert not summary.control_passed
    assert summary.control_message == "the network is gone"
    assert summary.unhealthy == 0


async def test_the_control_runs_again_after_the_last_result_though_others_were_told_before() -> (
    None
):
    last = asyncio.Event()

    async def act(aims: Sequence[Aim], report: Report) -> None:
        report(Result(aims[0].target_id, UNHEALTHY, "SCRIPT"))
        await last.wait()
        report(Result(aims[1].target_id, UNHEALTHY, "SCRIPT"))

    control = ScriptedControl(fails_from=2)
    subject = prober(act, control=control)
    async with aclosing(subject.probe("scripted", {}, targets(2))) as parts:
        first = await anext(parts)
        assert not isinstance(first, Summary)
        assert [result.verdict for result in first] == [UNHEALTHY]
        last.set()
        second = await anext(parts)
        assert not isinstance(second, Summary)
        assert [result.verdict for result in second] == [UNKNOWN]
        summary = await anext(parts)
    assert isinstance(summary, Summary)
    assert not summary.control_passed
    assert control.runs == 2


async def test_silence_of_all_targets_is_taken_for_our_own_blindness() -> None:
    act = saying(*[UNHEALTHY] * 3, reason=Reason.TIMEOUT, silent=True)
    results, summary = await run(prober(act), targets(3))
    assert {result.verdict for result in results.values()} == {UNKNOWN}
    assert not summary.control_passed
    assert "not one packet" in summary.control_message


async def test_silence_of_a_few_is_theirs() -> None:
    act = saying(UNHEALTHY, UNHEALTHY, reason=Reason.TIMEOUT, silent=True)
    _, summary = await run(prober(act), targets(2))
    assert (summary.control_passed, summary.unhealthy) == (True, 2)


def at(*hosts: int) -> list[Target]:
    return [Target(TargetId(f"vm-{host}"), (f"10.0.0.{host}",)) for host in hosts]


async def test_silence_of_small_groups_one_after_the_other_is_our_own_blindness() -> None:
    act = saying(UNHEALTHY, UNHEALTHY, reason=Reason.TIMEOUT, silent=True)
    subject = prober(act)
    await run(subject, at(1, 2))
    _, summary = await run(subject, at(3, 4))
    assert (summary.control_passed, summary.unhealthy) == (False, 0)


async def test_silence_of_the_same_few_again_and_again_is_theirs() -> None:
    act = saying(UNHEALTHY, UNHEALTHY, reason=Reason.TIMEOUT, silent=True)
    subject = prober(act)
    told = [(await run(subject, at(1, 2)))[1] for _ in range(5)]
    assert [(each.control_passed, each.unhealthy) for each in told] == [(True, 2)] * 5


async def test_silence_before_somebody_was_heard_says_nothing_of_now() -> None:
    async def act(aims: Sequence[Aim], report: Report) -> None:
        for aim in aims:
            is_silent = str(aim.address) != "10.0.0.9"
            report(Result(aim.target_id, UNHEALTHY, Reason.TIMEOUT, silent=is_silent))

    subject = prober(act)
    for hosts in ((1, 2), (9,)):
        await run(subject, at(*hosts))
    _, summary = await run(subject, at(3, 4))
    assert (summary.control_passed, summary.unhealthy) == (True, 2)


async def test_silence_beside_one_answer_is_theirs() -> None:
    async def act(aims: Sequence[Aim], report: Report) -> None:
        for aim in aims[1:]:
            report(Result(aim.target_id, UNHEALTHY, Reason.TIMEOUT, silent=True))
        report(Result(aims[0].target_id, UNHEALTHY, Reason.REFUSED))

    _, summary = await run(prober(act), targets(9))
    assert (summary.control_passed, summary.unhealthy) == (True, 9)


async def test_silence_is_theirs_when_a_named_control_target_proves_the_way() -> None:
    act = saying(*[UNHEALTHY] * 9, reason=Reason.TIMEOUT, silent=True)
    subject = prober(act, control=ScriptedControl(proves_network=True))
    _, summary = await run(subject, targets(9))
    assert (summary.control_passed, summary.unhealthy) == (True, 9)


async def test_suspicion_of_silence_can_be_switched_off() -> None:
    act = saying(*[UNHEALTHY] * 9, reason=Reason.TIMEOUT, silent=True)
    _, summary = await run(prober(act, suspect_silence=0), targets(9))
    assert (summary.control_passed, summary.unhealthy) == (True, 9)


async def test_a_check_without_network_needs_no_control_and_no_address() -> None:
    subject = prober(saying(UNHEALTHY), control=ScriptedControl(fails_from=1), kind=OfflineCheck)
    _, summary = await run(subject, [Target(TargetId("vm-0"))])
    assert (summary.control_passed, summary.unhealthy) == (True, 1)


async def test_a_check_never_sees_an_address_that_is_forbidden() -> None:
    seen: list[Aim] = []

    async def act(aims: Sequence[Aim], report: Report) -> None:
        seen.extend(aims)
        for aim in aims:
            report(Result(aim.target_id, HEALTHY, Reason.OK))

    wanted = [
        Target(TargetId("good"), ("10.0.0.1",)),
        Target(TargetId("bad"), ("169.254.169.254",)),
        Target(TargetId("name"), ("metadata.internal",)),
        Target(TargetId("none")),
    ]
    results, _ = await run(prober(act), wanted)
    assert [aim.target_id for aim in seen] == ["good"]
    assert {name: result.reason for name, result in results.items()} == {
        "good": Reason.OK,
        "bad": Reason.FORBIDDEN_ADDRESS,
        "name": Reason.DNS,
        "none": Reason.NO_ADDRESS,
    }


@pytest.mark.parametrize("slip", ["raises", "forgets", "repeats", "invents"])
async def test_every_target_has_one_result_whatever_the_check_does(slip: str) -> None:
    async def act(aims: Sequence[Aim], report: Report) -> None:
        report(Result(aims[0].target_id, HEALTHY, Reason.OK))
        if slip == "raises":
            raise ZeroDivisionError
        if slip == "repeats":
            report(Result(aims[0].target_id, UNHEALTHY, "SCRIPT"))
        if slip == "invents":
            report(Result(TargetId("somebody else"), UNHEALTHY, "SCRIPT"))

    results, summary = await run(prober(act), targets(3))
    verdicts = {name: result.verdict for name, result in results.items()}
    assert verdicts == {"vm-0": HEALTHY, "vm-1": UNKNOWN, "vm-2": UNKNOWN}
    assert (summary.healthy, summary.unhealthy, summary.unknown) == (1, 0, 2)


async def test_options_are_judged_before_anything_is_probed() -> None:
    act = saying(HEALTHY)
    control = ScriptedControl()
    with pytest.raises(settings.Invalid) as refused:
        await run(prober(act, control=control), targets(1), {"adress_family": "ipv4"})
    assert [violation.field for violation in refused.value.violations] == [
        "check.options.adress_family"
    ]
    assert control.runs == 0


async def test_a_check_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(NotFound, match="installed: scripted"):
        await anext(prober(saying()).probe("htp", {}, []))


async def test_too_many_requests_are_told_to_come_back_and_places_are_freed() -> None:
    never = asyncio.Event()
    cancelled: list[bool] = []

    async def hang(aims: Sequence[Aim], report: Report) -> None:
        report(Result(aims[0].target_id, HEALTHY, Reason.OK))
        try:
            await never.wait()
        finally:
            cancelled.append(True)

    subject = prober(hang, requests=1)
    async with aclosing(subject.probe("scripted", {}, targets(2))) as first:
        await anext(first)
        with pytest.raises(Throttled) as refused:
            await anext(subject.probe("scripted", {}, targets(2)))
        assert refused.value.retry_after is not None
    assert cancelled == [True]
    async with aclosing(subject.probe("scripted", {}, targets(2))) as again:
        await anext(again)
