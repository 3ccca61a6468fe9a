"""What people are told of a text, and of a preset that can be used in spite of a warning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from preset_service import library
from preset_service.drivers.directory import DirectoryDriver
from preset_service.last_good import LastGood
from preset_service.library import Library, Supplier
from preset_service.port import Place
from preset_service.schema import Defaults
from preset_service.servicer import PresetServicer
from vmshepherd.preset.v1 import preset_pb2 as pb
from vmshepherd.preset.v1 import preset_service_pb2 as service_pb
from vmshepherd_kit.clock import SystemClock

DOUBTFUL = """\
flavor: [small, large]
image: web-1
count: 3
network: {availability_zones: [a, b]}
policy:
  replace: rolling
  canary: 4
  min_healthy_time: 1m30s
"""


@pytest.fixture
async def shelves(tmp_path: Path) -> AsyncIterator[Library]:
    (tmp_path / "web.yaml").write_text(DOUBTFUL)
    clock = SystemClock()
    place = Place(
        name="local", where="options", base_dir=tmp_path, state_dir=tmp_path / "s", clock=clock
    )
    last_good = LastGood(tmp_path / "last_good.json")
    async with (
        library.running(last_good, life="life", clock=clock) as running,
        DirectoryDriver.open({"path": "."}, place=place) as source,
    ):
        await running.stock([Supplier(name="local", driver="directory", source=source)], Defaults())
        yield running
        await running.close()


async def validated(
    shelves: Library, text: str, file: str = "web.yaml"
) -> service_pb.ValidatePresetResponse:
    request = service_pb.ValidatePresetRequest(text=text, file=file)
    return await PresetServicer(shelves).ValidatePreset(request, None)


async def test_a_warning_keeps_no_text_from_being_shown_as_it_would_be(shelves: Library) -> None:
    answer = await validated(shelves, DOUBTFUL)
    [warning] = answer.findings
    assert (warning.line, warning.key, warning.severity) == (
        7, "policy.canary", pb.SEVERITY_WARNING,
    )  # fmt: skip
    spec = answer.preset.spec
    assert (spec.flavor, list(spec.fallback_flavors)) == ("small", ["large"])
    assert list(spec.network.availability_zones) == ["a", "b"]
    assert (spec.policy.replace, spec.policy.canary) == (pb.REPLACE_ROLLING, 4)
    assert spec.policy.min_healthy_time.seconds == 90


async def test_an_error_beside_a_warning_leaves_the_preset_out(shelves: Library) -> None:
    answer = await validated(shelves, f"{DOUBTFUL}  max_surge: 0\n  max_unavailable: 0\n")
    assert {each.severity for each in answer.findings} == {
        pb.SEVERITY_ERROR, pb.SEVERITY_WARNING,
    }  # fmt: skip
    assert not answer.HasField("preset")


async def test_all_that_is_wrong_is_told_in_order_of_the_lines(shelves: Library) -> None:
    text = "name: web\ncount: 1\npolicy: {canary: 0, max_lifetime: 1m}"
    answer = await validated(shelves, text, file="other.yaml")
    assert [(each.line, each.key) for each in answer.findings] == [
        (1, "name"), (3, "policy.max_lifetime"),
    ]  # fmt: skip
    assert not answer.HasField("preset")


async def test_a_watch_carries_a_doubtful_preset_with_its_warning(shelves: Library) -> None:
    messages = PresetServicer(shelves).WatchPresets(service_pb.WatchPresetsRequest(), None)
    [preset] = (await anext(messages)).upserted.presets
    assert [each.severity for each in preset.findings] == [pb.SEVERITY_WARNING]
    assert list(preset.spec.network.availability_zones) == ["a", "b"]
    assert preset.spec.policy.canary == 4
    listed = await PresetServicer(shelves).ListPresets(service_pb.ListPresetsRequest(), None)
    assert list(listed.presets) == [preset]
