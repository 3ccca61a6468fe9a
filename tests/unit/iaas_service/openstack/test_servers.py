from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from iaas_service import marker
from iaas_service.domain import Address, VmState
from iaas_service.drivers.openstack import servers
from tests.unit.iaas_service.openstack.captured import ACTIVE, BUILDING, FAILED
from vmshepherd_kit.errors import Unavailable

IMAGE_ID = "f0ba99d9-847a-4b15-94e4-e388840e2b87"
CREATED = datetime(2026, 11, 23, 1, 59, 52, tzinfo=UTC)


def with_metadata(metadata: dict[str, str], **more: Any) -> dict[str, Any]:
    return {**ACTIVE, "metadata": {**ACTIVE["metadata"], **metadata}, **more}


def test_a_server_is_told_whole() -> None:
    vm = servers.vm(ACTIVE)
    assert (vm.vm_id, vm.name, vm.state) == (ACTIVE["id"], "web-1", VmState.RUNNING)
    assert (vm.flavor, vm.zone, vm.key_name) == ("small", "north", "ops")
    assert vm.addresses == (Address(ip="10.0.3.173", network="private"),)
    assert vm.create_time == CREATED
    assert vm.host == ACTIVE["hostId"]
    assert not vm.locked
    mark = marker.read(vm.metadata, "contract")
    assert mark is not None
    assert (mark.preset, mark.fencing_token) == ("web", 7)


def test_a_server_that_is_being_made_has_no_address_and_no_zone_yet() -> None:
    vm = servers.vm(BUILDING)
    assert (vm.addresses, vm.zone, vm.host, vm.key_name) == ((), "", "", "")


def test_the_clouds_words_for_a_fault_are_kept() -> None:
    assert servers.vm(FAILED).fault == "No valid host was found. "


def test_a_locked_server_is_protected() -> None:
    assert marker.is_protected(servers.vm({**ACTIVE, "locked": True}))


def test_a_floating_address_is_told_as_one() -> None:
    told = {"private": [{"addr": "192.0.2.7", "OS-EXT-IPS:type": "floating"}]}
    [address] = servers.vm({**ACTIVE, "addresses": told}).addresses
    assert address == Address(ip="192.0.2.7", network="private", floating=True)


def test_an_image_is_called_as_it_was_ordered() -> None:
    assert servers.vm(with_metadata(servers.imprint(IMAGE_ID, "debian"))).image == "debian"


def test_a_server_that_somebody_rebuilt_from_another_image_shows_that_one() -> None:
    other = with_metadata(servers.imprint("00000000-0000-0000-0000-000000000000", "debian"))
    assert servers.vm(other).image == IMAGE_ID


def test_a_server_whose_order_nobody_knows_shows_the_id_of_its_image() -> None:
    assert servers.vm(ACTIVE).image == IMAGE_ID


def test_a_server_made_from_a_volume_shows_the_image_that_was_ordered() -> None:
    from_volume = with_metadata(servers.imprint(IMAGE_ID, "debian"), image="")
    assert servers.vm(from_volume).image == "debian"
    assert servers.image_id(from_volume) == IMAGE_ID


def test_a_server_made_from_a_volume_by_others_has_no_image() -> None:
    assert servers.vm({**ACTIVE, "image": ""}).image == ""
    assert servers.image_id({**ACTIVE, "image": ""}) == ""


def test_a_name_that_does_not_fit_into_metadata_is_left_out() -> None:
    assert servers.imprint(IMAGE_ID, "d" * 218) != {}
    assert servers.imprint(IMAGE_ID, "d" * 219) == {}


def test_the_creation_time_is_that_of_the_order_though_nova_changes_its_own() -> None:
    ordered = CREATED - timedelta(seconds=3)
    early = with_metadata(servers.birth(ordered))
    late = {**early, "created": "2026-11-23T02:00:09Z"}
    assert servers.vm(early).create_time == servers.vm(late).create_time == ordered


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23T01:59:52", "1999-01-01T00:00:00Z"])
def test_a_time_of_the_order_that_cannot_be_true_is_not_believed(text: str) -> None:
    assert servers.vm(with_metadata({servers.BIRTH: text})).create_time == CREATED


def test_what_the_driver_writes_for_itself_is_not_shown() -> None:
    written = {**servers.imprint(IMAGE_ID, "debian"), **servers.birth(CREATED), "team": "search"}
    shown = marker.without(servers.vm(with_metadata(written)).metadata)
    assert shown == {"team": "search"}


@pytest.mark.parametrize(
    "odd", [{"created": "yesterday"}, {"metadata": None}, {"addresses": {"a": [{}]}}, {"flavor": 1}]
)
def test_a_server_in_a_form_that_nova_does_not_use_is_named(odd: dict[str, Any]) -> None:
    with pytest.raises(Unavailable, match=ACTIVE["id"]):
        servers.vm({**ACTIVE, **odd})


@pytest.mark.parametrize("text", ["", "../servers", "a/b", "a?b", "a%2fb", "x" * 65, "ü"])
def test_what_could_lead_elsewhere_in_a_path_is_no_id(text: str) -> None:
    assert not servers.is_id(text)


def test_an_id_of_nova_is_one() -> None:
    assert servers.is_id(ACTIVE["id"])
