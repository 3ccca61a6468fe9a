"""The health service as a client meets it: a real server, real targets on loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2

from health_service.config import Config
from health_service.server import running
from health_service.testing import ABSENT, HEALTHY, HUNG, accepting, no_files_left
from vmshepherd.health.v1 import health_service_pb2 as pb2
from vmshepherd.health.v1 import health_service_pb2_grpc as pb2_grpc
from vmshepherd_kit import dial, errors, settings
from vmshepherd_kit.clock import SeededChance, SystemClock
from vmshepherd_kit.config_file import Suite

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@asynccontextmanager
async def client(tmp_path: Path, **config: Any) -> AsyncIterator[pb2_grpc.HealthServiceStub]:
    raw = {"listen": {"address": "127.0.0.1:0"}, **config}
    suite = Suite(suite_id="test", state_dir=tmp_path, base_dir=tmp_path, embedded=False)
    async with (
        running(
            settings.parse(raw, Config), suite=suite, clock=SystemClock(), chance=SeededChance(1)
        ) as server,
        dial.channel(server.address) as channel,
    ):
        yield pb2_grpc.HealthServiceStub(channel)


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[pb2_grpc.HealthServiceStub]:
    async with client(tmp_path) as stub:
        yield stub


def request(driver: str, *addresses: str, **options: Any) -> pb2.ProbeRequest:
    struct = struct_pb2.Struct()
    struct.update(options)
    return pb2.ProbeRequest(
        check=pb2.Check(driver=driver, options=struct),
        targets=[
            pb2.Target(target_id=f"vm-{n}", addresses=[address])
            for n, address in enumerate(addresses)
        ],
    )


async def probed(
    stub: pb2_grpc.HealthServiceStub, wanted: pb2.ProbeRequest
) -> tuple[dict[str, pb2.ProbeResult], pb2.ProbeSummary]:
    results: dict[str, pb2.ProbeResult] = {}
    parts = [part async for part in dial.listen(stub.Probe, wanted)]
    assert [part.WhichOneof("part") for part in parts].count("summary") == 1
    for part in parts[:-1]:
        results.update({result.target_id: result for result in part.results.results})
    return results, parts[-1].summary


async def test_targets_are_probed_and_summed_up(stub: pb2_grpc.HealthServiceStub) -> None:
    async with accepting(HEALTHY, says=OK) as port:
        results, summary = await probed(
            stub, request("http", HEALTHY, ABSENT, "169.254.169.254", port=port, body="hello")
        )
    assert {name: (result.verdict, result.reason) for name, result in results.items()} == {
        "vm-0": (pb2.VERDICT_HEALTHY, "OK"),
        "vm-1": (pb2.VERDICT_UNHEALTHY, "REFUSED"),
        "vm-2": (pb2.VERDICT_UNKNOWN, "FORBIDDEN_ADDRESS"),
    }
    assert results["vm-0"].latency.nanos > 0
    assert (summary.healthy, summary.unhealthy, summary.unknown) == (1, 1, 1)
    assert summary.control_passed
    assert summary.prober_id == SeededChance(1).uuid()


async def test_one_that_accepts_and_hangs_is_judged_alone_and_holds_nobody_up(
    stub: pb2_grpc.HealthServiceStub,
) -> None:
    async with accepting(HEALTHY, says=OK) as port, accepting(HUNG, port):
        order = [
            result
            async for part in dial.listen(
                stub.Probe, request("http", HUNG, HEALTHY, HEALTHY, port=port)
            )
            for result in part.results.results
        ]
    assert [(result.target_id, result.reason) for result in order[-1:]] == [("vm-0", "TIMEOUT")]
    assert {result.target_id for result in order[:2]} == {"vm-1", "vm-2"}
    assert {result.verdict for result in order[:2]} == {pb2.VERDICT_HEALTHY}


@pytest.mark.parametrize("driver", ["http", "tcp"])
async def test_used_up_file_descriptors_make_nobody_unhealthy(
    stub: pb2_grpc.HealthServiceStub, driver: str
) -> None:
    async with accepting(HEALTHY, says=OK) as port:
        healthy, _ = await probed(stub, request(driver, HEALTHY, port=port))
        with no_files_left():
            results, summary = await probed(
                stub, request(driver, *[HEALTHY, ABSENT] * 20, port=port)
            )
    assert healthy["vm-0"].verdict == pb2.VERDICT_HEALTHY
    assert {result.verdict for result in results.values()} == {pb2.VERDICT_UNKNOWN}
    assert (summary.unknown, summary.unhealthy) == (40, 0)
    assert not summary.control_passed
    assert "Too many open files" in summary.control_message


async def test_a_cut_network_makes_nobody_unhealthy(
    stub: pb2_grpc.HealthServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutSocket(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    await probed(stub, request("http", HEALTHY))
    monkeypatch.setattr("health_service.connecting.socket.socket", CutSocket)
    results, summary = await probed(stub, request("http", *[HEALTHY] * 20))
    assert {result.verdict for result in results.values()} == {pb2.VERDICT_UNKNOWN}
    assert summary.unhealthy == 0
    assert not summary.control_passed


async def test_a_network_cut_beyond_our_host_is_noticed_by_the_named_control_targets(
    tmp_path: Path,
) -> None:
    async with accepting(HEALTHY) as port:
        pass  # a free port
    gateway = [{"address": HEALTHY, "port": port}]
    async with client(tmp_path, control=gateway) as stub:
        results, summary = await probed(stub, request("tcp", ABSENT, port=port))
        assert (results["vm-0"].verdict, results["vm-0"].reason) == (
            pb2.VERDICT_UNKNOWN,
            "CONTROL",
        )
        assert not summary.control_passed
        async with accepting(HEALTHY, port):
            results, summary = await probed(stub, request("tcp", ABSENT, port=port))
        assert results["vm-0"].verdict == pb2.VERDICT_UNHEALTHY
        assert summary.control_passed


async def test_many_targets_come_in_chunks(stub: pb2_grpc.HealthServiceStub) -> None:
    wanted = request("dummy", *["10.0.0.1"] * 10_000)
    sizes = [
        len(part.results.results)
        async for part in dial.listen(stub.Probe, wanted)
        if part.HasField("results")
    ]
    assert sum(sizes) == 10_000
    assert max(sizes) <= 500


async def test_options_that_are_wrong_are_named(stub: pb2_grpc.HealthServiceStub) -> None:
    with pytest.raises(errors.BadRequest, match="check_status") as refused:
        await probed(stub, request("http", HEALTHY, chek_status=200, path="@169.254.169.254/"))
    assert {violation.field for violation in refused.value.violations} == {
        "check.options.chek_status",
        "check.options.path",
    }


async def test_a_check_that_is_not_installed_is_not_found(
    stub: pb2_grpc.HealthServiceStub,
) -> None:
    with pytest.raises(errors.NotFound, match="dummy, http, tcp"):
        await probed(stub, request("ping", HEALTHY))


async def test_too_many_targets_are_refused(stub: pb2_grpc.HealthServiceStub) -> None:
    with pytest.raises(errors.BadRequest, match="10000"):
        await probed(stub, request("dummy", *["10.0.0.1"] * 10_001))


async def test_too_many_requests_are_told_to_come_back(tmp_path: Path) -> None:
    async with (
        client(tmp_path, requests=1) as stub,
        accepting(HEALTHY, says=OK) as port,
        accepting(HUNG, port),
    ):
        first = stub.Probe(request("http", HEALTHY, HUNG, port=port, read_timeout=30))
        await anext(aiter(first))
        with pytest.raises(errors.Throttled) as refused:
            await probed(stub, request("dummy", HEALTHY))
        assert refused.value.retry_after is not None
        first.cancel()
        async with asyncio.timeout(10):
            await _until_served(stub)


async def _until_served(stub: pb2_grpc.HealthServiceStub) -> None:
    while True:
        try:
            await probed(stub, request("dummy", HEALTHY))
        except errors.Throttled:
            await asyncio.sleep(0.01)
        else:
            return


async def test_the_checks_are_listed_in_pages_with_their_options(
    stub: pb2_grpc.HealthServiceStub,
) -> None:
    first = await dial.ask(stub.ListChecks, pb2.ListChecksRequest(page_size=2))
    rest = await dial.ask(stub.ListChecks, pb2.ListChecksRequest(page_token=first.next_page_token))
    assert [check.name for check in [*first.checks, *rest.checks]] == ["dummy", "http", "tcp"]
    assert rest.next_page_token == ""
    assert "check_status" in str(first.checks[1].options_schema)
    with pytest.raises(errors.BadRequest):
        await dial.ask(stub.ListChecks, pb2.ListChecksRequest(page_token="made up"))
