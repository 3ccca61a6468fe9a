"""PresetService over a real server, from its configuration to its stubs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from preset_service import server
from preset_service.config import Config
from vmshepherd.preset.v1 import preset_pb2 as pb
from vmshepherd.preset.v1 import preset_service_pb2 as service_pb
from vmshepherd.preset.v1.preset_service_pb2_grpc import PresetServiceStub
from vmshepherd_kit import dial, settings, status
from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    ResumeTokenTooOld,
    ShepherdError,
    Unavailable,
)

PATIENCE_SECONDS = 20

Message = service_pb.WatchPresetsResponse


class Service:
    """A running service, its stub, and the directory that it reads."""

    def __init__(self, stub: PresetServiceStub, directory: Path) -> None:
        self.stub = stub
        self.directory = directory

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    async def page(self, **request: Any) -> service_pb.ListPresetsResponse:
        return await dial.ask(self.stub.ListPresets, service_pb.ListPresetsRequest(**request))

    async def get(self, name: str) -> pb.Preset:
        request = service_pb.GetPresetRequest(name=name)
        return (await dial.ask(self.stub.GetPreset, request)).preset

    async def sources(self, **request: Any) -> service_pb.ListSourcesResponse:
        return await dial.ask(self.stub.ListSources, service_pb.ListSourcesRequest(**request))

    async def refresh(self, *names: str) -> list[service_pb.RefreshSourceResult]:
        request = service_pb.RefreshSourcesRequest(names=names)
        return list((await dial.ask(self.stub.RefreshSources, request)).results)

    async def validate(self, text: str, **more: str) -> service_pb.ValidatePresetResponse:
        request = service_pb.ValidatePresetRequest(text=text, **more)
        return await dial.ask(self.stub.ValidatePreset, request)

    def watch(self, resume_token: str = "") -> AsyncGenerator[Message, None]:
        request = service_pb.WatchPresetsRequest(resume_token=resume_token)
        return dial.listen(self.stub.WatchPresets, request)


@asynccontextmanager
async def running(base: Path, raw: dict[str, Any] | None = None) -> AsyncIterator[Service]:
    async with (
        serving(base, raw) as running_server,
        dial.channel(running_server.address) as channel,
    ):
        yield Service(PresetServiceStub(channel), base / "presets.d")


def serving(
    base: Path, raw: dict[str, Any] | None = None
) -> AbstractAsyncContextManager[server.Running]:
    config = configuration(raw or {})
    suite = Suite(suite_id="test", state_dir=base / "state", base_dir=base, embedded=False)
    return server.running(config, suite=suite, clock=SystemClock(), chance=SystemChance())


def configuration(raw: dict[str, Any]) -> Config:
    return settings.parse({"listen": {"address": "127.0.0.1:0"}, **raw}, Config)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "presets.d").mkdir()
    return tmp_path


@pytest.fixture
async def service(base: Path) -> AsyncIterator[Service]:
    (base / "presets.d" / "web.yaml").write_text(WEB)
    async with running(base) as service:
        yield service


WEB = """\
count: 3
flavor: small
image: web-1
iaas: {provider: os, region: r1}
network: {security_groups: [a], subnets: [s], availability_zone: z}
healthcheck: {driver: http, port: 80, fall: 2, min_failing_time: 5}
userdata: 'hello {{ name }}'
meta_tags: {role: web}
manage_interval: 30
policy: {max_surge: 0, scale_in_order: oldest, on_remove: delete, startup_grace: 1m}
panel_links: {panel: 'https://panel/'}
"""


async def collected(messages: AsyncIterator[Message]) -> list[Message]:
    """The messages up to and with the next bookmark."""
    seen = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for message in messages:
            seen.append(message)
            if message.HasField("bookmark"):
                break
    return seen


def names(messages: list[Message]) -> tuple[list[str], list[str]]:
    """The names that were upserted and those that were removed."""
    upserted = [p.name for m in messages for p in m.upserted.presets]
    return upserted, [p.name for m in messages for p in m.removed.presets]


async def test_a_preset_arrives_whole(service: Service) -> None:
    preset = await service.get("web")
    assert (preset.source, preset.file, len(preset.spec_hash)) == ("local", "web.yaml", 64)
    assert preset.changed_time.seconds
    spec = preset.spec
    assert (spec.count, spec.flavor, spec.image, spec.provider) == (3, "small", "web-1", "os")
    assert spec.user_data == "hello web"
    assert dict(spec.iaas_options.items()) == {"region": "r1"}
    assert list(spec.network.attachments) == [pb.Attachment(subnet="s")]
    assert (spec.healthcheck.driver, spec.healthcheck.fall) == ("http", 2)
    assert not spec.healthcheck.HasField("rise")
    assert spec.healthcheck.min_failing_time.seconds == 5
    assert spec.healthcheck.options["port"] == 80
    assert (spec.manage_interval.seconds, spec.HasField("manage_expire")) == (30, False)
    assert spec.policy.HasField("max_surge")
    assert spec.policy.max_surge == 0
    assert not spec.policy.HasField("max_unavailable")
    assert spec.policy.scale_in_order == pb.SCALE_IN_ORDER_OLDEST
    assert spec.policy.on_remove == pb.ON_REMOVE_DELETE
    assert dict(spec.panel_links) == {"panel": "https://panel/"}
    assert (await service.page()).presets == [preset]


async def test_an_unknown_preset_is_not_found(service: Service) -> None:
    with pytest.raises(NotFound, match="'db'"):
        await service.get("db")
    with pytest.raises(BadRequest, match="name"):
        await service.get("")


async def test_a_list_comes_in_pages_that_fit(base: Path) -> None:
    for i in range(60):
        large = "x" * 60_000
        (base / "presets.d" / f"p{i:02}.yaml").write_text(f"count: {i}\nuserdata: {large}")
    async with running(base) as service:
        seen: list[str] = []
        answer = await service.page(page_size=50)
        while True:
            assert answer.ByteSize() < 4 * 1024 * 1024
            seen += [preset.name for preset in answer.presets]
            if not answer.next_page_token:
                break
            answer = await service.page(page_size=50, page_token=answer.next_page_token)
        assert seen == [f"p{i:02}" for i in range(60)]
        assert [p.name for p in (await service.page(page_size=1)).presets] == ["p00"]
        with pytest.raises(BadRequest):
            await service.page(page_token="made up")
        with pytest.raises(BadRequest):
            await service.page(page_size=-1)
        assert names(await collected(service.watch()))[0] == seen


async def test_a_watch_begins_with_all_and_goes_on_with_changes(service: Service) -> None:
    async with aclosing(service.watch()) as messages:
        first = await collected(messages)
        assert names(first) == (["web"], [])
        assert first[-1].bookmark.sources_synced
        service.write("db.yaml", "count: 1")
        assert names(await collected(messages)) == (["db"], [])
        service.write("db.yaml", "count: 1\nimage: ]")
        [broken, _] = await collected(messages)
        [preset] = broken.upserted.presets
        assert preset.spec.count == 1
        [finding] = preset.findings
        assert (finding.file, finding.line, finding.severity) == ("db.yaml", 2, pb.SEVERITY_ERROR)
        (service.directory / "db.yaml").unlink()
        assert names(await collected(messages)) == ([], ["db"])


async def test_a_changed_file_of_user_data_is_a_changed_preset(service: Service) -> None:
    service.write("boot.sh", "one")
    service.write("web.yaml", "count: 1\nuserdata: file://boot.sh")
    await service.refresh()
    before = await service.get("web")
    async with aclosing(service.watch()) as messages:
        await collected(messages)
        service.write("boot.sh", "two {{ name }}")
        [changed, _] = await collected(messages)
    [preset] = changed.upserted.presets
    assert preset.spec.user_data == "two web"
    assert preset.spec_hash != before.spec_hash


async def test_a_watch_goes_on_after_its_token(service: Service) -> None:
    [_, bookmark] = await collected(service.watch())
    service.write("db.yaml", "count: 1")
    await service.refresh()
    token = bookmark.bookmark.resume_token
    assert names(await collected(service.watch(token))) == (["db"], [])
    with pytest.raises(BadRequest):
        await collected(service.watch("made up"))


async def test_a_token_of_a_former_life_is_too_old_and_the_presets_are_still_there(
    base: Path,
) -> None:
    (base / "presets.d" / "web.yaml").write_text("count: 3")
    async with running(base) as service:
        messages = await collected(service.watch())
    (base / "presets.d" / "web.yaml").write_text("count: three")
    async with running(base) as service:
        with pytest.raises(ResumeTokenTooOld):
            await collected(service.watch(messages[-1].bookmark.resume_token))
        preset = await service.get("web")
        assert preset.spec.count == 3
        assert preset.findings


async def test_watches_end_when_the_server_drains(base: Path) -> None:
    async with serving(base) as running_server, dial.channel(running_server.address) as channel:
        service = Service(PresetServiceStub(channel), base)
        messages = service.watch()
        await collected(messages)
        await asyncio.wait_for(running_server.drain(timedelta(seconds=1)), PATIENCE_SECONDS)
        with pytest.raises(Unavailable):
            await collected(messages)


async def test_a_source_tells_its_state(service: Service) -> None:
    service.write("bad.yaml", "count: ]")
    [result] = await service.refresh("local")
    assert status.from_proto(result.status) is None
    [source] = (await service.sources()).sources
    assert result.source.name == source.name
    assert (source.name, source.driver, source.presets) == ("local", "directory", 2)
    assert source.location == str(service.directory)
    assert source.revision
    assert source.synced_time.seconds
    assert [finding.file for finding in source.findings] == ["bad.yaml"]


async def test_an_unreachable_source_is_told_and_its_presets_stay(service: Service) -> None:
    service.directory.rename(service.directory.parent / "elsewhere")
    unknown, unreachable = await service.refresh("other", "local")
    assert isinstance(status.from_proto(unknown.status), NotFound)
    assert isinstance(status.from_proto(unreachable.status), Unavailable)
    assert unreachable.source.error
    assert not unknown.HasField("source")
    assert [preset.name for preset in (await service.page()).presets] == ["web"]


async def test_sources_come_in_pages_and_too_many_names_are_refused(base: Path) -> None:
    raw = {"sources": [{"name": n, "options": {"path": "presets.d"}} for n in ("z", "a", "m")]}
    async with running(base, raw) as service:
        first = await service.sources(page_size=2)
        rest = await service.sources(page_token=first.next_page_token)
        assert [source.name for source in (*first.sources, *rest.sources)] == ["z", "a", "m"]
        assert not rest.next_page_token
        with pytest.raises(BadRequest):
            await service.refresh(*("z",) * 1001)


async def test_a_text_is_validated_and_nothing_is_kept_of_it(service: Service) -> None:
    answer = await service.validate("count: 5\nuserdata: secret", file="db.yaml")
    assert not answer.findings
    assert (answer.preset.name, answer.preset.spec.count) == ("db", 5)
    assert answer.preset.spec.user_data == ""
    assert [preset.name for preset in (await service.page()).presets] == ["web"]


async def test_a_faulty_text_is_told_what_is_wrong(service: Service) -> None:
    answer = await service.validate("count: 5\nflavr: x\nuserdata: '{{ x }}'", file="db.yaml")
    [finding] = answer.findings
    assert (finding.file, finding.line, finding.key) == ("db.yaml", 2, "flavr")
    assert "'flavor'" in finding.message
    assert not answer.HasField("preset")
    assert (await service.validate("count: 1\nuserdata: '{{ x }}'", file="db.yaml")).findings


async def test_a_text_with_the_name_of_another_file_would_not_be_used(service: Service) -> None:
    answer = await service.validate("name: web\ncount: 5", file="db.yaml")
    assert "web.yaml" in answer.findings[0].message
    assert not (await service.validate("name: web\ncount: 5", file="web.yaml")).findings
    assert not (await service.validate("name: web\ncount: 5")).findings


async def test_a_text_that_cannot_be_meant_is_refused(service: Service) -> None:
    for text, source in (("", ""), ("#" * 300_000, ""), ("count: 1", "other")):
        with pytest.raises(BadRequest):
            await service.validate(text, source=source)


async def test_other_sources_and_defaults_take_force_without_a_restart(base: Path) -> None:
    (base / "presets.d" / "web.yaml").write_text("count: 1")
    (base / "more.d").mkdir()
    (base / "more.d" / "db.yaml").write_text("count: 2")
    local = {"name": "local", "options": {"path": "presets.d"}}
    more = {"name": "more", "options": {"path": "more.d"}}
    async with serving(base) as running_server, dial.channel(running_server.address) as channel:
        service = Service(PresetServiceStub(channel), base / "presets.d")
        raw = {"sources": [local, more], "defaults": {"iaas": "os"}}
        await running_server.reload(configuration(raw))
        presets = (await service.page()).presets
        assert [(p.name, p.spec.provider) for p in presets] == [("db", "os"), ("web", "os")]
        await running_server.reload(configuration({"sources": [more]}))
        assert [preset.name for preset in (await service.page()).presets] == ["db"]


@pytest.mark.parametrize(
    "raw",
    [
        {"sources": [{"name": "a", "options": {"pth": "x"}}]},
        {"sources": [{"name": "a", "driver": "absent"}]},
        {"listen": {"address": "127.0.0.1:1"}, "sources": []},
    ],
)
async def test_refused_settings_leave_everything_as_it_is(base: Path, raw: dict[str, Any]) -> None:
    (base / "presets.d" / "web.yaml").write_text("count: 1")
    async with serving(base) as running_server, dial.channel(running_server.address) as channel:
        service = Service(PresetServiceStub(channel), base / "presets.d")
        with pytest.raises(ShepherdError):
            await running_server.reload(configuration(raw))
        service.write("web.yaml", "count: 2")
        await service.refresh()
        assert (await service.get("web")).spec.count == 2
