from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from iaas_service.server import mount
from orchestrator.clients.calls import Rebuild
from orchestrator.clients.iaas import ONCE, Iaas
from orchestrator.model import Method, PresetName, VmId
from tests.support.gate import Gate
from vmshepherd.iaas.v1 import iaas_service_pb2 as pb
from vmshepherd.iaas.v1 import iaas_service_pb2_grpc as pb_grpc
from vmshepherd.iaas.v1 import vm_pb2
from vmshepherd_kit import dial, serve, status
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    OutcomeUnknown,
    Refused,
    ShepherdError,
    StaleFencingToken,
    Throttled,
    Unavailable,
    Unsupported,
)

WEB, OTHER = PresetName("web"), PresetName("other")
LISTEN = serve.Listen(address="127.0.0.1:0")
MINUTE = timedelta(minutes=1)


class Service(pb_grpc.IaasServiceServicer):
    """An iaas service with two VMs, which knows newer tokens of some presets."""

    def __init__(self, *providers: str) -> None:
        self.providers = providers
        self.is_idempotent = True
        self.newer: dict[str, int] = {}
        self.told_at_once = 2
        self.traits: list[Any] = []
        self.console = "one\ntwo\nthree"
        self.asked: list[Any] = []

    async def ListProviders(self, request: Any, context: Any) -> pb.ListProvidersResponse:
        traits = [*self.traits]
        if self.is_idempotent:
            traits.append(vm_pb2.PROVIDER_TRAIT_IDEMPOTENT_CREATE)
        return pb.ListProvidersResponse(
            suite_id="suite",
            providers=[vm_pb2.Provider(name=name, traits=traits) for name in self.providers],
        )

    async def ListVms(self, request: pb.ListVmsRequest, context: Any) -> pb.ListVmsResponse:
        self.asked.append(request)
        stale = [h.preset for h in request.held if self.newer.get(h.preset, 0) > h.fencing_token]
        if stale:
            told = stale[: self.told_at_once]
            raise StaleFencingToken(
                "stale",
                presets=",".join(told),
                floors=",".join(str(self.newer[name]) for name in told),
            )
        vms = [made("a", "web"), made("b", "other")]
        at = int(request.page_token or 0)
        return pb.ListVmsResponse(
            vms=vms[at : at + 1],
            next_page_token="1" if at == 0 else "",
            complete=True,
        )

    async def GetVms(self, request: pb.GetVmsRequest, context: Any) -> pb.GetVmsResponse:
        self.asked.append(request)
        found = {"a": made("a", "web"), "b": made("b", "other")}
        console = self.console if request.console_lines else ""
        return pb.GetVmsResponse(
            results=[
                pb.VmResult(vm=found[vm_id], console=console)
                if vm_id in found
                else pb.VmResult(status=status.to_proto(NotFound("gone")))
                for vm_id in request.vm_ids
            ]
        )

    async def CreateVms(self, request: pb.CreateVmsRequest, context: Any) -> pb.CreateVmsResponse:
        self.asked.append(request)
        return pb.CreateVmsResponse(
            results=[
                pb.VmResult(status=status.to_proto(Throttled("later")))
                if create.name == "throttled"
                else pb.VmResult(vm=made(create.name, create.preset))
                for create in request.creates
            ]
        )

    async def TerminateVms(
        self, request: pb.TerminateVmsRequest, context: Any
    ) -> pb.TerminateVmsResponse:
        self.asked.append(request)
        return pb.TerminateVmsResponse(
            results=[pb.TerminateResult(existed=each.vm_id == "a") for each in request.terminations]
        )

    async def RebootVms(self, request: pb.RebootVmsRequest, context: Any) -> pb.RebootVmsResponse:
        self.asked.append(request)
        return pb.RebootVmsResponse(results=[repaired(each) for each in request.reboots])

    async def RebuildVms(
        self, request: pb.RebuildVmsRequest, context: Any
    ) -> pb.RebuildVmsResponse:
        self.asked.append(request)
        if request.spec.image == "bad":
            raise BadRequest("no such image")
        return pb.RebuildVmsResponse(results=[repaired(each) for each in request.rebuilds])


def repaired(mutation: pb.VmMutation) -> pb.VmResult:
    if mutation.vm_id == "throttled":
        return pb.VmResult(status=status.to_proto(Throttled("later")))
    return pb.VmResult(vm=made(mutation.vm_id, mutation.preset))


def made(vm_id: str, preset: str) -> vm_pb2.Vm:
    return vm_pb2.Vm(
        vm_id=vm_id, state=vm_pb2.VM_STATE_RUNNING, marker=vm_pb2.Marker(preset=preset)
    )


def service(*providers: str) -> Any:
    """It answers what is asked of it here; the rest is unimplemented."""
    return Service(*providers)  # type: ignore[abstract]


@asynccontextmanager
async def client(
    *services: Service, tokens: dict[PresetName, int] | None = None
) -> AsyncIterator[tuple[Iaas, Sequence[Gate]]]:
    gates = [Gate() for _ in services]
    async with AsyncExitStack() as stack:
        channels = []
        for each, gate in zip(services, gates, strict=True):
            running = serve.running(
                [mount(each)],  # type: ignore[arg-type]
                LISTEN,
                interceptors=[gate],
                clock=SystemClock(),
            )
            server = await stack.enter_async_context(running)
            channel = dial.channel(server.address, once=ONCE)
            channels.append(await stack.enter_async_context(channel))
        yield Iaas(channels, clock=SystemClock(), tokens=lambda: tokens or {}), gates


async def test_one_listing_serves_all_presets_that_ask_at_once() -> None:
    fake = service("sim")
    async with client(fake) as (iaas, gates):
        await iaas.cloud("")
        first, second = await asyncio.gather(iaas.list_vms("sim", WEB), iaas.list_vms("sim", OTHER))
        assert [vm.vm_id for vm in first.vms] == ["a"]
        assert [vm.vm_id for vm in second.vms] == ["b"]
        # Two pages of one listing.
        assert gates[0].calls["ListVms"] == 2


async def test_presets_that_somebody_newer_holds_are_told_and_the_others_served() -> None:
    fake = service("sim")
    names = [PresetName(f"stale-{number}") for number in range(7)]
    fake.newer = dict.fromkeys(names, 90)
    held = {**dict.fromkeys(names, 3), WEB: 5}
    async with client(fake, tokens=held) as (iaas, _):
        await iaas.cloud("")
        found = await asyncio.gather(
            *(iaas.list_vms("sim", name) for name in (*names, WEB)), return_exceptions=True
        )
    # An error has room for two of them at a time.
    for each in found[:-1]:
        assert isinstance(each, StaleFencingToken)
        assert each.facts["floor"] == "90"
    assert not isinstance(found[-1], BaseException)
    assert [vm.vm_id for vm in found[-1].vms] == ["a"]


async def test_a_service_that_only_says_stale_is_not_asked_for_ever() -> None:
    fake = service("sim")
    fake.newer, fake.told_at_once = {WEB: 9}, 0
    async with client(fake, tokens={WEB: 5}) as (iaas, gates):
        await iaas.cloud("")
        with pytest.raises(StaleFencingToken):
            await iaas.list_vms("sim", WEB)
        assert gates[0].calls["ListVms"] == 1


async def test_a_vm_read_by_id_is_none_when_gone_or_not_of_this_preset() -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        found = await asyncio.gather(
            iaas.get_vm("sim", WEB, VmId("a")),
            iaas.get_vm("sim", WEB, VmId("b")),
            iaas.get_vm("sim", WEB, VmId("c")),
        )
        assert [vm and vm.vm_id for vm in found] == ["a", None, None]
        assert gates[0].calls["GetVms"] == 1


async def test_each_create_has_its_own_outcome() -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        found = await asyncio.gather(
            *(
                iaas.create("sim", pb.VmCreate(name=name, preset="web"), deadline=MINUTE)
                for name in ("x", "throttled")
            ),
            return_exceptions=True,
        )
        assert not isinstance(found[0], BaseException)
        assert found[0].vm_id == "x"
        assert isinstance(found[1], Throttled)
        assert gates[0].calls["CreateVms"] == 1


@pytest.mark.parametrize("trouble", [Unavailable("broke"), Throttled("no stream left")])
async def test_a_create_whose_call_broke_may_have_been_carried_out(trouble: Any) -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        gates[0].losing["CreateVms"] = trouble
        with pytest.raises(OutcomeUnknown):
            await iaas.create("sim", pb.VmCreate(name="x"), deadline=MINUTE)
        assert gates[0].calls["CreateVms"] == 1


async def test_a_request_that_was_refused_was_not_carried_out() -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        gates[0].refusing["CreateVms"] = BadRequest("no")
        with pytest.raises(BadRequest):
            await iaas.create("sim", pb.VmCreate(name="x"), deadline=MINUTE)


@pytest.mark.parametrize(
    "refusal",
    [
        Throttled("too many calls at once", reason="TOO_MANY_AT_ONCE", retry_after=MINUTE),
        Refused("0.900 s are left", reason="DEADLINE_TOO_SHORT"),
    ],
)
async def test_a_call_that_was_not_let_in_was_not_carried_out_and_says_when_to_come_back(
    refusal: ShepherdError,
) -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        for method in ("CreateVms", "RebootVms", "RebuildVms"):
            gates[0].refusing[method] = refusal
        vm = pb.VmMutation(vm_id="a")
        told = await asyncio.gather(
            iaas.create("sim", pb.VmCreate(name="x"), deadline=MINUTE),
            iaas.reboot("sim", vm, deadline=MINUTE),
            iaas.rebuild("sim", rebuild("a", "debian"), deadline=MINUTE),
            return_exceptions=True,
        )
        for each in told:
            assert isinstance(each, type(refusal))
            assert (each.reason, each.retry_after) == (refusal.reason, refusal.retry_after)


async def test_a_termination_that_was_not_let_in_may_have_been_carried_out_the_time_before() -> (
    None
):
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        gates[0].refusing["TerminateVms"] = Throttled("too many", reason="TOO_MANY_AT_ONCE")
        with pytest.raises(OutcomeUnknown):
            await iaas.terminate("sim", pb.VmMutation(vm_id="a"), deadline=MINUTE)


async def test_a_termination_whose_call_broke_may_have_been_carried_out() -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        gates[0].losing["TerminateVms"] = Unavailable("broke")
        with pytest.raises(OutcomeUnknown):
            await iaas.terminate("sim", pb.VmMutation(vm_id="a"), deadline=MINUTE)
        # To destroy what is gone is no harm: the channel may repeat it.
        assert gates[0].calls["TerminateVms"] > 1
        gates[0].losing.clear()
        assert await iaas.terminate("sim", pb.VmMutation(vm_id="a"), deadline=MINUTE)
        assert not await iaas.terminate("sim", pb.VmMutation(vm_id="c"), deadline=MINUTE)


async def test_each_reboot_of_one_call_has_its_own_outcome() -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        asked = (
            iaas.reboot("sim", pb.VmMutation(vm_id=name, preset="web"), deadline=MINUTE)
            for name in ("a", "throttled")
        )
        done, refused = await asyncio.gather(*asked, return_exceptions=True)
        assert not isinstance(done, BaseException)
        assert done.vm_id == "a"
        assert isinstance(refused, Throttled)
        assert gates[0].calls["RebootVms"] == 1


def rebuild(vm_id: str, image: str, spec_hash: str = "h") -> Rebuild:
    return Rebuild(pb.VmMutation(vm_id=vm_id), vm_pb2.VmSpec(image=image), spec_hash)


async def test_rebuilds_of_one_spec_share_a_call_and_each_gets_its_own_answer() -> None:
    fake = service("sim")
    async with client(fake) as (iaas, gates):
        await iaas.cloud("")
        wanted = [
            rebuild("a", "debian"),
            rebuild("b", "bad"),
            rebuild("throttled", "debian"),
            rebuild("c", "debian", "other hash"),
        ]
        asked = (iaas.rebuild("sim", each, deadline=MINUTE) for each in wanted)
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [getattr(each, "vm_id", type(each)) for each in found] == [
            "a",
            BadRequest,
            Throttled,
            "c",
        ]
        assert gates[0].calls["RebuildVms"] == 3
        assert {
            (each.spec.image, each.spec_hash, *(one.vm_id for one in each.rebuilds))
            for each in fake.asked
        } == {
            ("debian", "h", "a", "throttled"),
            ("bad", "h", "b"),
            ("debian", "other hash", "c"),
        }


@pytest.mark.parametrize("method", ["RebootVms", "RebuildVms"])
async def test_a_repair_whose_call_broke_may_have_been_carried_out_and_is_not_repeated(
    method: str,
) -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        gates[0].losing[method] = Unavailable("broke")
        with pytest.raises(OutcomeUnknown):
            await repair(iaas, method)
        assert gates[0].calls[method] == 1


@pytest.mark.parametrize("method", ["RebootVms", "RebuildVms"])
async def test_what_a_driver_cannot_do_was_not_done(method: str) -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        gates[0].refusing[method] = Unsupported("this driver cannot")
        with pytest.raises(Unsupported):
            await repair(iaas, method)


async def repair(iaas: Iaas, method: str, deadline: timedelta = MINUTE) -> object:
    if method == "RebootVms":
        return await iaas.reboot("sim", pb.VmMutation(vm_id="a"), deadline=deadline)
    return await iaas.rebuild("sim", rebuild("a", "debian"), deadline=deadline)


async def test_a_console_is_cut_to_the_lines_that_each_asked_for() -> None:
    fake = service("sim")
    async with client(fake) as (iaas, gates):
        await iaas.cloud("")
        asked = (iaas.console("sim", WEB, VmId("a"), lines) for lines in (1, 2))
        assert await asyncio.gather(*asked) == ["three", "two\nthree"]
        assert gates[0].calls["GetVms"] == 1
        assert fake.asked[0].console_lines == 2


async def test_the_console_of_another_preset_is_not_shown() -> None:
    async with client(service("sim")) as (iaas, _):
        await iaas.cloud("")
        assert await iaas.console("sim", WEB, VmId("b"), 50) == ""
        assert await iaas.console("sim", WEB, VmId("gone"), 50) == ""


async def test_a_console_that_cannot_be_read_is_empty_and_raises_nothing() -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        gates[0].refusing["GetVms"] = Throttled("not now")
        assert await iaas.console("sim", WEB, VmId("a"), 50) == ""


async def test_a_console_is_not_waited_for_long() -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        assert await iaas.console("sim", WEB, VmId("a"), 50)
        assert gates[0].time_left["GetVms"] < 3


async def test_what_a_provider_can_do_to_a_vm_is_learned() -> None:
    fake = service("plain")
    async with client(fake) as (iaas, _):
        _, cloud = await iaas.cloud("")
        assert (cloud.methods, cloud.has_console) == (frozenset(), False)
        fake.traits = [
            vm_pb2.PROVIDER_TRAIT_REBOOT,
            vm_pb2.PROVIDER_TRAIT_REBUILD,
            vm_pb2.PROVIDER_TRAIT_CONSOLE,
        ]
        await iaas.discover()
        _, cloud = await iaas.cloud("")
        assert (cloud.methods, cloud.has_console) == (frozenset(Method), True)


@pytest.mark.parametrize("method", ["RebootVms", "RebuildVms"])
async def test_a_repair_ends_before_authority(method: str) -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        await repair(iaas, method, timedelta(seconds=5))
        assert gates[0].time_left[method] < 5


async def test_a_call_ends_before_the_shortest_authority_in_it() -> None:
    async with client(service("sim")) as (iaas, gates):
        await iaas.cloud("")
        for name, ask in (("CreateVms", iaas.create), ("TerminateVms", iaas.terminate)):
            message: Any = pb.VmCreate() if name == "CreateVms" else pb.VmMutation()
            deadlines = [timedelta(seconds=30), timedelta(seconds=5)]
            asking = [ask("sim", message, deadline=each) for each in deadlines]
            await asyncio.gather(*asking)
            # Gathering took a moment of it.
            assert gates[0].time_left[name] < 5


async def test_a_service_that_is_away_hides_no_provider_of_another() -> None:
    first, second = service("main"), service("spare")
    async with client(first, second) as (iaas, gates):
        gates[0].refusing["ListProviders"] = Throttled("away")
        assert (await iaas.cloud("spare"))[0] == "spare"
        # The default is the first of the first, and nobody takes its place.
        with pytest.raises(Throttled):
            await iaas.cloud("")
        gates[0].refusing.clear()
        assert (await iaas.cloud(""))[0] == "main"
        gates[0].refusing["ListProviders"] = Throttled("away")
        assert (await iaas.cloud(""))[0] == "main"


async def test_an_unknown_provider_is_told_with_those_there_are() -> None:
    async with client(service("main", "spare")) as (iaas, _):
        with pytest.raises(NotFound, match="main, spare"):
            await iaas.cloud("other")


async def test_what_a_provider_promises_is_learned_anew() -> None:
    fake = service("main")
    async with client(fake) as (iaas, _):
        assert (await iaas.cloud("main"))[1].idempotent
        fake.is_idempotent = False
        await iaas.discover()
        assert not (await iaas.cloud("main"))[1].idempotent
