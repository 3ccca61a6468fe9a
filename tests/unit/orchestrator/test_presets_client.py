from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.clients.presets import Presets, declared, policy
from orchestrator.model import Check, Policy, PresetName, Replace
from tests.support.shell import WEB
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd.preset.v1 import preset_service_pb2 as pb
from vmshepherd.preset.v1 import preset_service_pb2_grpc as pb_grpc
from vmshepherd_kit import serve, stamps
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import ResumeTokenTooOld, Unavailable
from vmshepherd_kit.testing import served

OTHER = PresetName("other")


class Service(pb_grpc.PresetServiceServicer):
    """Streams what a test puts in; an exception ends the stream."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.tokens: list[str] = []

    async def WatchPresets(
        self, request: pb.WatchPresetsRequest, context: Any
    ) -> AsyncIterator[Any]:
        self.tokens.append(request.resume_token)
        while True:
            event = await self.events.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def upsert(self, *names: str) -> None:
        presets = [preset_pb2.Preset(name=name, spec=preset_pb2.PresetSpec()) for name in names]
        self.events.put_nowait(
            pb.WatchPresetsResponse(upserted=pb.PresetsUpserted(presets=presets))
        )

    def remove(self, *names: str) -> None:
        presets = [pb.RemovedPreset(name=name) for name in names]
        self.events.put_nowait(pb.WatchPresetsResponse(removed=pb.PresetsRemoved(presets=presets)))

    def bookmark(self, token: str, *, is_synced: bool = True) -> None:
        bookmark = pb.Bookmark(resume_token=token, sources_synced=is_synced)
        self.events.put_nowait(pb.WatchPresetsResponse(bookmark=bookmark))


class Following:
    def __init__(self, service: Service, presets: Presets) -> None:
        self.service = service
        self.presets = presets
        self.changed: list[PresetName] = []

    def note(self, names: Iterable[PresetName]) -> None:
        self.changed += names

    def is_synced(self) -> bool:
        return self.presets.is_synced

    async def is_so(self, *names: str) -> None:
        async with asyncio.timeout(10):
            while self.presets.names() != sorted(names) or self.service.events.qsize():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert self.presets.names() == sorted(names)


@asynccontextmanager
async def following() -> AsyncIterator[Following]:
    service: Any = Service()  # type: ignore[abstract]
    mount = serve.Mount(
        add=pb_grpc.add_PresetServiceServicer_to_server,
        servicer=service,
        descriptor=pb.DESCRIPTOR.services_by_name["PresetService"],
    )
    async with served([mount]) as channel:
        found = Following(service, Presets(channel, clock=SystemClock()))
        task = asyncio.create_task(found.presets.follow(found.note))
        yield found
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_declared_is_known_and_told() -> None:
    async with following() as here:
        here.service.upsert("web", "other")
        await here.is_so("web", "other")
        assert set(here.changed) == {WEB, OTHER}
        assert not here.is_synced()
        here.service.bookmark("1")
        here.service.remove("other")
        await here.is_so("web")
        assert here.is_synced()
        assert here.presets.removed() == [OTHER]
        here.service.upsert("other")
        await here.is_so("web", "other")
        assert here.presets.removed() == []


async def test_a_broken_stream_leaves_the_copy_and_is_taken_up_where_it_broke() -> None:
    async with following() as here:
        here.service.upsert("web", "other")
        here.service.bookmark("7")
        await here.is_so("web", "other")
        here.service.events.put_nowait(Unavailable("away"))
        here.service.upsert("third")
        await here.is_so("web", "other", "third")
        # What was told since the bookmark is told again, and nothing before it.
        assert set(here.service.tokens) == {"", "7"}
        assert here.service.tokens[-1] == "7"


async def test_a_snapshot_of_sources_that_were_not_all_read_removes_nothing() -> None:
    async with following() as here:
        here.service.upsert("web", "other")
        here.service.bookmark("7")
        await here.is_so("web", "other")
        # The service has forgotten everything, and one of its sources is out of reach.
        here.service.events.put_nowait(ResumeTokenTooOld("too old"))
        here.service.events.put_nowait(ResumeTokenTooOld("too old"))
        here.service.upsert("web")
        here.service.bookmark("8", is_synced=False)
        here.service.upsert("third")
        await here.is_so("web", "other", "third")
        # Broken off now, it begins anew: only a whole snapshot tells who is gone.
        here.service.events.put_nowait(Unavailable("away"))
        here.service.upsert("web", "third")
        here.service.bookmark("9")
        await here.is_so("web", "third")
        assert here.service.tokens[-1] == ""
        assert OTHER in here.changed


async def test_a_token_that_is_too_old_leads_to_a_fresh_snapshot() -> None:
    async with following() as here:
        here.service.upsert("web", "other")
        here.service.bookmark("7")
        await here.is_so("web", "other")
        here.service.events.put_nowait(Unavailable("away"))
        here.service.events.put_nowait(ResumeTokenTooOld("too old"))
        here.service.upsert("web")
        here.service.bookmark("9")
        await here.is_so("web")
        assert here.service.tokens[-1] == ""


def test_a_preset_that_was_never_read_has_no_spec() -> None:
    assert declared(preset_pb2.Preset(name="web")).spec is None


def test_what_a_preset_leaves_out_has_the_defaults_of_the_core() -> None:
    message = preset_pb2.Preset(name="web")
    message.spec.count = 3
    message.spec.healthcheck.driver = "http"
    found = declared(message)
    assert found.spec is not None
    assert found.spec.policy == Policy()
    assert found.spec.check == Check()
    assert found.interval is None


def test_what_a_preset_says_is_taken_over_zeros_included() -> None:
    spec = preset_pb2.PresetSpec(
        healthcheck=preset_pb2.HealthCheck(driver="http", fall=1, observe_only=True),
        policy=preset_pb2.Policy(
            max_surge=0,
            max_unavailable=0,
            startup_grace=stamps.to_duration(timedelta(0)),
            scale_in_order=preset_pb2.SCALE_IN_ORDER_OLDEST,
        ),
        manage_interval=stamps.to_duration(timedelta(seconds=7)),
        unmanaged=True,
    )
    spec.healthcheck.min_failing_time.FromTimedelta(timedelta(0))
    found = declared(preset_pb2.Preset(name="web", spec=spec))
    assert found.spec is not None
    policy = found.spec.policy
    assert (policy.max_surge, policy.max_unavailable) == (0, 0)
    assert policy.startup_grace == timedelta(0)
    assert policy.oldest_leaves_first
    assert found.spec.check == Check(fall=1, min_failing_time=timedelta(0), observe_only=True)
    assert not found.spec.managed
    assert found.interval == timedelta(seconds=7)


def test_every_field_of_a_policy_can_be_declared() -> None:
    day = stamps.to_duration(timedelta(days=1))
    plain: dict[str, Any] = {
        field.name: day if field.message_type else 7
        for field in preset_pb2.Policy.DESCRIPTOR.fields
        if not field.enum_type
    }
    message = preset_pb2.Policy(
        **plain,
        replace=preset_pb2.REPLACE_ROLLING,
        scale_in_order=preset_pb2.SCALE_IN_ORDER_OLDEST,
        on_stopped=preset_pb2.ON_STOPPED_REPLACE,
        on_remove=preset_pb2.ON_REMOVE_DELETE,
    )
    found, default = policy(message), Policy()
    unsaid = [each.name for each in fields(Policy) if _same(found, default, each.name)]
    assert unsaid == ["keep_failed_time", "removal_grace"]  # a day is their default
    assert (found.reboots, found.batch_pause) == (7, timedelta(days=1))
    assert found.replace is Replace.ROLLING


def _same(found: Policy, default: Policy, name: str) -> bool:
    return bool(getattr(found, name) == getattr(default, name))


@pytest.mark.parametrize("number", [0, 99])
def test_a_choice_that_is_not_told_or_not_known_is_the_harmless_one(number: Any) -> None:
    message = preset_pb2.Policy(
        replace=number, on_stopped=number, on_remove=number, scale_in_order=number
    )
    assert policy(message) == Policy()


def test_fallbacks_follow_what_they_stand_in_for() -> None:
    spec = preset_pb2.PresetSpec(
        image="debian-13", fallback_images=["debian-12"], flavor="small", fallback_flavors=["s2"]
    )
    found = declared(preset_pb2.Preset(name="web", spec=spec))
    assert found.spec is not None
    assert found.spec.images == ("debian-13", "debian-12")
    assert found.spec.flavors == ("small", "s2")


def test_where_nothing_is_to_be_chosen_there_is_no_choice() -> None:
    spec = preset_pb2.PresetSpec(image="debian-13", flavor="small")
    spec.network.availability_zone = "az1"
    found = declared(preset_pb2.Preset(name="web", spec=spec))
    assert found.spec is not None
    assert found.vm_spec is not None
    assert (found.spec.images, found.spec.flavors, found.spec.zones) == ((), (), ())
    assert found.vm_spec.availability_zone == "az1"


@pytest.mark.parametrize(
    ("zones", "choice", "only"), [(["az1"], (), "az1"), (["az1", "az2"], ("az1", "az2"), "")]
)
def test_one_zone_is_everybodys_and_several_are_a_choice(
    zones: list[str], choice: tuple[str, ...], only: str
) -> None:
    spec = preset_pb2.PresetSpec()
    spec.network.availability_zones.extend(zones)
    found = declared(preset_pb2.Preset(name="web", spec=spec))
    assert found.spec is not None
    assert found.vm_spec is not None
    assert (found.spec.zones, found.vm_spec.availability_zone) == (choice, only)


async def test_a_file_is_understood_while_a_preset_of_it_is_known_whatever_is_wrong_there() -> None:
    fault = preset_pb2.Finding(file="web.yaml", message="count: must be a number")
    known = preset_pb2.Preset(name="web", source="local", findings=[fault])
    known.spec.count = 1
    unread = preset_pb2.Preset(name="front", source="local")
    unread.findings.add(file="front.yaml", message="is no YAML")
    async with following() as here:
        here.presets._upsert([known, unread])
        assert here.presets.is_understood("local", "web.yaml")
        assert not here.presets.is_understood("git", "web.yaml")
        assert not here.presets.is_understood("local", "front.yaml")


async def test_how_a_removed_preset_was_declared_last_is_known() -> None:
    async with following() as here:
        here.service.upsert("web")
        await here.is_so("web")
        assert here.presets.last(WEB) is None
        here.service.remove("web")
        await here.is_so()
        last = here.presets.last(WEB)
        assert last is not None
        assert last.spec is not None
