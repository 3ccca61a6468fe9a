from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from orchestrator.clients.health import Health, Target
from orchestrator.model import Verdict
from tests.support.gate import Gate
from tests.support.suite import FakeProber
from vmshepherd.health.v1 import health_service_pb2 as pb
from vmshepherd.health.v1.health_service_pb2_grpc import add_HealthServiceServicer_to_server
from vmshepherd_kit import serve
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import Throttled, Unavailable
from vmshepherd_kit.testing import served

HTTP, TCP = pb.Check(driver="http"), pb.Check(driver="tcp")


@asynccontextmanager
async def client(prober: FakeProber) -> AsyncIterator[tuple[Health, Gate]]:
    gate = Gate()
    mount = serve.Mount(
        add=add_HealthServiceServicer_to_server,
        servicer=prober,
        descriptor=pb.DESCRIPTOR.services_by_name["HealthService"],
    )
    async with served([mount], interceptors=[gate]) as channel:
        yield Health(channel, clock=SystemClock()), gate


def target(name: str, address: str) -> Target:
    return Target(name, (address,))


async def test_presets_with_one_check_share_a_batch_and_each_gets_its_own_verdicts() -> None:
    prober = FakeProber()
    prober.sick = {"127.0.0.2"}
    async with client(prober) as (health, gate):
        found = await asyncio.gather(
            health.probe(HTTP, [target("a", "127.0.0.1"), target("b", "127.0.0.2")]),
            health.probe(HTTP, [target("c", "127.0.0.3")]),
            health.probe(TCP, [target("a", "127.0.0.1")]),
        )
        assert gate.calls["Probe"] == 2
    verdicts = [{name: probe.verdict for name, probe in each.items()} for each in found]
    assert verdicts == [
        {"a": Verdict.HEALTHY, "b": Verdict.UNHEALTHY},
        {"c": Verdict.HEALTHY},
        {"a": Verdict.HEALTHY},
    ]


async def test_vms_of_two_clouds_with_one_id_are_told_apart() -> None:
    prober = FakeProber()
    prober.sick = {"127.0.0.2"}
    async with client(prober) as (health, gate):
        one, other = await asyncio.gather(
            health.probe(HTTP, [target("vm-1", "127.0.0.1")]),
            health.probe(HTTP, [target("vm-1", "127.0.0.2")]),
        )
        assert gate.calls["Probe"] == 1
    assert one["vm-1"].verdict is Verdict.HEALTHY
    assert other["vm-1"].verdict is Verdict.UNHEALTHY


async def test_a_prober_that_fails_its_control_condemns_nobody() -> None:
    prober = FakeProber()
    prober.is_blind = True
    async with client(prober) as (health, _):
        found = await health.probe(HTTP, [target("a", "127.0.0.1")])
    assert found["a"].verdict is Verdict.UNKNOWN
    assert "the control is silent" in found["a"].message


async def test_verdicts_without_a_summary_are_none() -> None:
    prober = FakeProber()
    prober.breaks_off = True
    async with client(prober) as (health, _):
        with pytest.raises(Unavailable, match="before its summary"):
            await health.probe(HTTP, [target("a", "127.0.0.1")])


async def test_a_check_that_is_refused_fails_for_its_presets_alone() -> None:
    prober = FakeProber()
    prober.hanging = {"tcp"}
    async with client(prober) as (health, gate):
        waiting = asyncio.create_task(health.probe(TCP, [target("a", "127.0.0.1")]))
        found = await health.probe(HTTP, [target("a", "127.0.0.1")])
        assert found["a"].verdict is Verdict.HEALTHY
        waiting.cancel()
        gate.refusing["Probe"] = Throttled("too much")
        with pytest.raises(Throttled):
            await health.probe(HTTP, [target("a", "127.0.0.1")])
