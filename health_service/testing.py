# ruff: noqa: S101, PLR2004  (these are tests)
"""What every check must pass, ours and other people's; for authors of checks.

Derive a test class from `CheckContract`, or from `NetworkCheckContract` for a check that talks to
the VMs, with a fixture `subject` that says how to make the check and a VM that it finds healthy.
Only tests import this; all traffic stays on loopback.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, cast

import pytest

from health_service.control import listening
from health_service.domain import Aim, Reason, Result, TargetId, Verdict
from health_service.lag import Lag
from health_service.pace import Pace
from health_service.port import Check, Tools, Trait
from vmshepherd_kit import settings
from vmshepherd_kit.clock import SystemClock

HEALTHY: Final = "127.1.0.1"
HUNG: Final = "127.1.0.2"
ABSENT: Final = "127.1.0.3"
_PATIENCE: Final = 20


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A check under test."""

    check: Callable[[Tools], Check]
    # A healthy VM at this address, within the block; the port it listens on.
    healthy: Callable[[str], AbstractAsyncContextManager[int]]
    # The options that a healthy VM at this port passes, with short timeouts.
    options: Callable[[int], Mapping[str, Any]]


def tools(*, concurrency: int = 50, files: Path = Path()) -> Tools:
    """Tools on the real clock."""
    clock = SystemClock()
    pace = Pace(clock, concurrency=concurrency, starts_per_second=10_000)
    return Tools(clock=clock, pace=pace, lag=Lag(clock), files=files)


def aims(*addresses: str) -> list[Aim]:
    """One aim an address, named for its place."""
    return [Aim(TargetId(f"vm-{n}"), ip_address(a)) for n, a in enumerate(addresses)]


async def probed(
    check: Check, options: Mapping[str, Any], wanted: Sequence[Aim]
) -> dict[str, Result]:
    """The results by target; fails when one target has two."""
    probe = await check.prepare(settings.parse(options, check.options))
    results: list[Result] = []
    async with asyncio.timeout(_PATIENCE):
        await probe(wanted, results.append)
    by_target = {result.target_id: result for result in results}
    assert len(by_target) == len(results)
    return {str(target_id): result for target_id, result in by_target.items()}


@asynccontextmanager
async def accepting(
    address: str, port: int = 0, *, says: bytes | None = None
) -> AsyncIterator[int]:
    """A VM that accepts, and then says nothing; or answers this and hangs up."""

    class Peer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = cast("asyncio.Transport", transport)
            connections.append(self._transport)

        def data_received(self, data: bytes) -> None:
            if says is not None:
                self._transport.write(says)
                self._transport.close()

    connections: list[asyncio.Transport] = []
    server = await asyncio.get_running_loop().create_server(Peer, address, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in connections:
            transport.abort()


@contextmanager
def no_files_left() -> Iterator[None]:
    """Within the block, no file descriptor can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class CheckContract:
    """The tests; `subject` is the fixture to give."""

    @pytest.fixture
    def subject(self) -> Subject:
        """Overridden by each check."""
        raise NotImplementedError

    async def test_a_healthy_vm_is_healthy(self, subject: Subject) -> None:
        """With the options of the subject."""
        async with subject.healthy(HEALTHY) as port:
            results = await probed(subject.check(tools()), subject.options(port), aims(HEALTHY))
        assert results["vm-0"].verdict is Verdict.HEALTHY, results
        assert results["vm-0"].reason == Reason.OK

    async def test_every_aim_has_one_result_though_few_probes_run_at_once(
        self, subject: Subject
    ) -> None:
        """Two hundred aims, three places."""
        async with subject.healthy(HEALTHY) as port:
            check = subject.check(tools(concurrency=3))
            results = await probed(check, subject.options(port), aims(*[HEALTHY] * 200))
        assert len(results) == 200
        assert {result.verdict for result in results.values()} == {Verdict.HEALTHY}

    async def test_no_aims_have_no_results(self, subject: Subject) -> None:
        """The smallest batch."""
        assert await probed(subject.check(tools()), subject.options(9), []) == {}

    async def test_the_control_passes_against_the_probers_own_listener(
        self, subject: Subject
    ) -> None:
        """With the options that the check itself gives."""
        check = subject.check(tools())
        async with listening() as port:
            options = check.control_options(port)
            if options is not None:
                results = await probed(check, options, aims("127.0.0.1"))
                assert results["vm-0"].verdict is Verdict.HEALTHY, results

    async def test_a_latency_is_told(self, subject: Subject) -> None:
        """It is never negative, and of the probe alone."""
        async with subject.healthy(HEALTHY) as port:
            results = await probed(subject.check(tools()), subject.options(port), aims(HEALTHY))
        assert timedelta(0) <= results["vm-0"].latency < timedelta(seconds=_PATIENCE)

    async def test_an_unknown_option_is_refused_by_its_name(self, subject: Subject) -> None:
        """Before anything is probed."""
        check = subject.check(tools())
        with pytest.raises(settings.Invalid) as refused:
            settings.parse({**subject.options(80), "no_such_key": 1}, check.options)
        assert [finding.path for finding in refused.value.findings] == ["no_such_key"]

    def test_the_options_have_a_json_schema(self, subject: Subject) -> None:
        """For clients that help to write them."""
        assert subject.check(tools()).options.model_json_schema()["type"] == "object"

    async def test_it_closes(self, subject: Subject) -> None:
        """Also when it was never used."""
        await subject.check(tools()).close()


class NetworkCheckContract(CheckContract):
    """And these for a check that talks to the VMs."""

    def test_it_says_that_it_needs_the_network(self, subject: Subject) -> None:
        """Else its targets' addresses are not vetted, and no control is run."""
        assert Trait.NETWORK in subject.check(tools()).traits

    async def test_a_vm_that_hangs_holds_nobody_up(self, subject: Subject) -> None:
        """The others' results are there while it is still being waited for."""
        check = subject.check(tools())
        async with subject.healthy(HEALTHY) as port, accepting(HUNG, port):
            probe = await check.prepare(settings.parse(subject.options(port), check.options))
            order: list[Result] = []
            await probe(aims(HUNG, HEALTHY, HEALTHY), order.append)
        assert [r.verdict for r in order[:2]] == [Verdict.HEALTHY, Verdict.HEALTHY]

    async def test_a_refused_connection_is_unhealthy(self, subject: Subject) -> None:
        """And no exception."""
        check = subject.check(tools())
        async with subject.healthy(HEALTHY) as port:
            results = await probed(check, subject.options(port), aims(ABSENT, HEALTHY))
        assert results["vm-0"].verdict is Verdict.UNHEALTHY
        assert results["vm-0"].reason == Reason.REFUSED
        assert results["vm-1"].verdict is Verdict.HEALTHY

    async def test_used_up_file_descriptors_say_nothing_about_the_vms(
        self, subject: Subject
    ) -> None:
        """Whether or not the VMs are well."""
        check = subject.check(tools())
        async with subject.healthy(HEALTHY) as port:
            with no_files_left():
                results = await probed(check, subject.options(port), aims(HEALTHY, ABSENT))
        assert {result.verdict for result in results.values()} == {Verdict.UNKNOWN}
        assert {result.reason for result in results.values()} == {Reason.LOCAL}

    async def test_a_cancelled_probe_leaves_nothing_running(self, subject: Subject) -> None:
        """No task, and no place taken."""
        lent = tools(concurrency=2)
        check = subject.check(lent)
        async with accepting(HUNG) as port:
            before = asyncio.all_tasks()
            probe = await check.prepare(settings.parse(subject.options(port), check.options))
            work: asyncio.Future[None] = asyncio.ensure_future(
                probe(aims(*[HUNG] * 5), lambda _: None)
            )
            await asyncio.wait({work}, timeout=0.05)
            work.cancel()
            await asyncio.wait({work})
            assert work.cancelled()
            assert asyncio.all_tasks() <= before
        async with asyncio.timeout(_PATIENCE):
            await lent.pace.begin()
            await lent.pace.begin()
