"""The last good presets on disk."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from preset_service.domain import (
    Attachment,
    Finding,
    HealthCheck,
    Network,
    OnRemove,
    Policy,
    Preset,
    PresetSpec,
    Replace,
    ScaleInOrder,
)
from preset_service.last_good import LastGood

FULL = Preset(
    name="web",
    spec=PresetSpec(
        count=3,
        provider="os",
        flavor="m1",
        image="jammy",
        network=Network(
            security_groups=("a",),
            attachments=(Attachment(subnet="s"),),
            availability_zones=("a", "b"),
        ),
        fallback_flavors=("m2",),
        user_data="#!/bin/sh\necho hunter2\n",
        meta_tags={"a": "b"},
        key_name="ops",
        healthcheck=HealthCheck(
            driver="http",
            options={"port": 80, "headers": {"a": [1, 2.5, None, True]}},
            fall=2,
            min_failing_time=timedelta(seconds=1.5),
        ),
        manage_interval=timedelta(minutes=1),
        policy=Policy(
            max_surge=0,
            scale_in_order=ScaleInOrder.OLDEST,
            on_remove=OnRemove.DELETE,
            replace=Replace.ROLLING,
            batch_pause=timedelta(seconds=90),
        ),
        panel_links={"x": "https://y"},
        iaas_options={"region": "r"},
    ),
    source="local",
    file="web.yaml",
    revision="r",
    spec_hash="h",
    changed_time=datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
    findings=(Finding(message="wrong", line=1),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "preset" / "last_good.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


async def test_what_was_saved_is_loaded(path: Path) -> None:
    await LastGood(path).save([FULL])
    assert await LastGood(path).load() == (FULL,)


async def test_only_good_ones_are_saved(path: Path) -> None:
    await LastGood(path).save([FULL, Preset(name="x", spec=None, source="s", file="f")])
    assert await LastGood(path).load() == (FULL,)


async def test_there_are_none_at_first(path: Path) -> None:
    assert await LastGood(path).load() == ()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2, "presets": []}', b"\xff"])
async def test_a_damaged_file_is_as_good_as_none_and_is_replaced(
    path: Path, content: bytes
) -> None:
    write(path, content)
    assert await LastGood(path).load() == ()
    await LastGood(path).save([FULL])
    assert await LastGood(path).load() == (FULL,)


async def test_only_the_owner_can_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        await LastGood(path).save([FULL])
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


async def test_a_failed_save_leaves_the_former_one_and_no_litter(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await LastGood(path).save([FULL])

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        await LastGood(path).save([])
    assert await LastGood(path).load() == (FULL,)
    assert [each.name for each in path.parent.iterdir()] == ["last_good.json"]


async def test_damage_is_told_without_what_the_file_holds(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(path, b'{"version": 1, "presets": [{"user_data": "hunter2"}]}')
    assert await LastGood(path).load() == ()
    assert "hunter2" not in capsys.readouterr().out
