"""What Nova is told, and what its refusals of a create mean."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from iaas_service.domain import Marker, Order, Spec
from iaas_service.drivers.openstack.choose import Thing
from iaas_service.drivers.openstack.create import body, understood
from iaas_service.drivers.openstack.resolve import Interface, Resolved
from iaas_service.drivers.openstack.wishes import BootVolume
from vmshepherd_kit.errors import BadRequest, Denied, QuotaExceeded, ShepherdError, Unavailable

IMAGE = Thing(id="f0ba99d9-847a-4b15-94e4-e388840e2b87", name="debian")
RESOLVED = Resolved(
    microversion="2.93",
    image=IMAGE,
    flavor=Thing(id="7", name="small"),
    interfaces=(Interface(network=Thing(id="net-1", name="private")),),
    networks="",
    security_groups=(),
    zone="",
    key_name="",
    server_group=None,
    policy="",
    boot_volume=None,
    config_drive=None,
    tags=(),
)


def an_order(**spec: Any) -> Order:
    mark = Marker(
        suite_id="trial", preset="web", request_id="r-1", fencing_token=7, spec_hash="9f2c"
    )
    fields = {"flavor": "small", "image": "debian", **spec}
    return Order(name="web-1", spec=Spec(**fields), marker=mark)


def server(order: Order | None = None, **changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = body(order or an_order(), replace(RESOLVED, **changes), group="")[
        "server"
    ]
    return told


def test_what_nobody_wishes_for_is_not_said() -> None:
    assert set(server()) == {"name", "flavorRef", "imageRef", "networks", "metadata"}


def test_the_marker_is_there_from_the_first_moment_and_nothing_overrides_it() -> None:
    told = server(an_order(metadata={"team": "search", "vmshepherd_suite": "mine"}))["metadata"]
    assert (told["team"], told["vmshepherd_suite"]) == ("search", "trial")
    assert (told["vmshepherd_request"], told["vmshepherd_token"]) == ("r-1", "7")


def test_user_data_go_in_base64() -> None:
    told = server(an_order(user_data="#!/bin/sh\n"))["user_data"]
    assert base64.b64decode(told) == b"#!/bin/sh\n"


def test_security_groups_go_by_their_ids_whatever_else_has_their_name() -> None:
    assert server(security_groups=(Thing(id="sg-1", name="web"),))["security_groups"] == [
        {"name": "sg-1"}
    ]


def test_no_network_is_a_word() -> None:
    assert server(interfaces=(), networks="none")["networks"] == "none"


def test_a_fixed_address_goes_with_its_network() -> None:
    interfaces = (Interface(network=Thing(id="net-1", name="private"), fixed_ip="10.0.0.9"),)
    assert server(interfaces=interfaces)["networks"] == [{"uuid": "net-1", "fixed_ip": "10.0.0.9"}]


def test_a_config_drive_that_is_not_wanted_is_said_to_be_so() -> None:
    assert server(config_drive=False)["config_drive"] is False


def test_a_vm_that_boots_from_a_volume_has_no_image_of_its_own() -> None:
    told = server(boot_volume=BootVolume(size=20, type="fast", delete_on_termination=False))
    assert "imageRef" not in told
    assert told["block_device_mapping_v2"] == [
        {
            "boot_index": 0,
            "uuid": IMAGE.id,
            "source_type": "image",
            "destination_type": "volume",
            "volume_size": 20,
            "delete_on_termination": False,
            "volume_type": "fast",
        }
    ]


def test_a_server_group_is_a_hint_to_the_scheduler() -> None:
    told = body(an_order(), RESOLVED, group="g-1")
    assert told["os:scheduler_hints"] == {"group": "g-1"}


def said(kind: type[ShepherdError], status: str, words: str) -> ShepherdError:
    return understood(kind(f"Nova answered {status}: {words}", http_status=status, said=words))


def test_ports_that_are_used_up_are_a_quota_though_nova_does_not_call_them_so() -> None:
    error = said(Denied, "403", "Maximum number of ports exceeded")
    assert isinstance(error, QuotaExceeded)
    assert "Maximum number of ports exceeded" in error.message


def test_a_missing_role_stays_one() -> None:
    words = "Policy doesn't allow os_compute_api:servers:create to be performed."
    assert isinstance(said(Denied, "403", words), Denied)


def test_a_conflict_at_a_create_is_nothing_to_wait_for() -> None:
    words = "Multiple possible networks found, use a Network ID to be more specific."
    assert isinstance(said(Unavailable, "409", words), BadRequest)


@pytest.mark.parametrize("status", ["", "502"])
def test_a_cloud_out_of_reach_stays_so(status: str) -> None:
    assert isinstance(said(Unavailable, status, "away"), Unavailable)
