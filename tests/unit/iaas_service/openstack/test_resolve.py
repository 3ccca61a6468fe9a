"""Whether an image fits into its flavor, what an old Nova lacks, and which fault is told first."""

from __future__ import annotations

from typing import Any

import pytest

from iaas_service.drivers.openstack import wishes
from iaas_service.drivers.openstack.choose import Thing, wrong
from iaas_service.drivers.openstack.resolve import _all, _require_room, _require_version
from vmshepherd_kit.errors import BadRequest, NoCapacity, ShepherdError, Unsupported

IMAGE = Thing(id="1", name="debian", facts={"min_ram_mib": 1024, "min_disk_gib": 20})


def a_flavor(ram_mib: int, disk_gib: int) -> Thing:
    return Thing(id="7", name="small", facts={"ram_mib": ram_mib, "disk_gib": disk_gib})


def refusal(flavor: Thing, **options: Any) -> str:
    """Of an image and a flavor that do not fit together."""
    with pytest.raises(BadRequest) as refused:
        _require_room(IMAGE, flavor, wishes.options(options))
    return refused.value.message


def test_an_image_that_needs_more_memory_than_its_flavor_has_is_refused() -> None:
    assert refusal(a_flavor(512, 20)) == (
        "spec.flavor: 'small' has 512 MiB of memory, and image 'debian' needs 1024"
    )


def test_an_image_that_needs_more_disk_than_its_flavor_has_is_refused() -> None:
    assert refusal(a_flavor(1024, 10)) == (
        "spec.flavor: 'small' has 10 GiB of disk, and image 'debian' needs 20"
    )


def test_of_a_vm_that_boots_from_a_volume_the_volume_is_measured() -> None:
    assert refusal(a_flavor(1024, 40), boot_volume={"size": 10}) == (
        "spec.options.boot_volume.size: the volume has 10 GiB of disk, and image 'debian' needs 20"
    )
    volume = wishes.options({"boot_volume": {"size": 20}})
    _require_room(IMAGE, a_flavor(1024, 10), volume)


@pytest.mark.parametrize("disk_gib", [20, 0], ids=["just enough", "as large as the image"])
def test_an_image_that_fits_is_accepted(disk_gib: int) -> None:
    _require_room(IMAGE, a_flavor(1024, disk_gib), wishes.options({}))


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"tags": ["blue"]}, "2.52"),
        ({"networks": "none"}, "2.37"),
        ({"boot_volume": {"size": 20, "type": "fast"}}, "2.67"),
        ({"server_group": "soft-affinity"}, "2.15"),
    ],
    ids=["tags", "networks", "volume type", "soft policy"],
)
def test_what_a_nova_is_too_old_for_is_refused_until_it_is_new_enough(
    options: dict[str, Any], first: str
) -> None:
    wished = wishes.options(options)
    _require_version(first, wished)
    before = f"2.{int(first.partition('.')[2]) - 1}"
    with pytest.raises(Unsupported, match=f"needs Nova's microversion {first}") as refused:
        _require_version(before, wished)
    assert refused.value.facts["option"].partition(".")[0] in options


def test_of_an_old_nova_nobody_is_refused_what_it_has() -> None:
    plain = {"server_group": "affinity", "boot_volume": {"size": 20}, "fixed_ip": "10.0.0.9"}
    _require_version("2.1", wishes.options(plain))


async def lookup(fault: ShepherdError) -> Thing:
    raise fault


async def test_a_cloud_that_has_no_room_is_told_before_the_faults_of_the_spec() -> None:
    with pytest.raises(NoCapacity):
        await _all(lookup(wrong("spec.flavor", "is none")), lookup(NoCapacity("the zone is away")))


async def test_every_fault_of_the_spec_is_told_with_its_field() -> None:
    with pytest.raises(BadRequest) as refused:
        await _all(lookup(wrong("spec.flavor", "is none")), lookup(wrong("spec.image", "is none")))
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["spec.flavor", "spec.image"]
