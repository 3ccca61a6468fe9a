"""Texts that Nova or its database cannot take, refused before anything is asked."""

from __future__ import annotations

from typing import Any

import pytest

from iaas_service.domain import Spec
from iaas_service.drivers.openstack import wishes
from iaas_service.drivers.openstack.options import OpenstackOptions
from iaas_service.drivers.openstack.places import chosen
from iaas_service.drivers.openstack.resolve import _is_of_a_host
from vmshepherd_kit import settings
from vmshepherd_kit.errors import BadRequest

SHEEP = "\N{SHEEP}"


def spec(**fields: Any) -> Spec:
    return Spec(**{"flavor": "small", "image": "debian", **fields})


def refused(**fields: Any) -> BadRequest:
    wanted = spec(**fields)
    with pytest.raises(BadRequest) as refusal:
        wishes.require_fitting(wanted, wishes.options(wanted.options))
    return refusal.value


def accepted(**fields: Any) -> None:
    wanted = spec(**fields)
    wishes.require_fitting(wanted, wishes.options(wanted.options))


def test_values_of_metadata_are_measured_as_nova_does_in_characters() -> None:
    accepted(metadata={"team": "ä" * 255})
    assert "at most 255 characters" in refused(metadata={"team": "ä" * 256}).message


def test_a_character_that_novas_database_cannot_keep_is_refused_by_its_number() -> None:
    error = refused(metadata={"team": f"wool {SHEEP}", "mail": "ä"}, options={"tags": [SHEEP, "ö"]})
    assert [each.field for each in error.violations] == ["spec.metadata.team", "spec.options.tags"]
    assert "U+1F411" in error.message


@pytest.mark.parametrize(
    ("address", "cidr", "fits"),
    [
        ("10.0.0.9", "10.0.0.0/24", True),
        ("10.0.0.0", "10.0.0.0/24", False),
        ("10.0.0.255", "10.0.0.0/24", False),
        ("10.0.0.1", "10.0.0.0/31", True),
        ("10.0.0.0", "10.0.0.0/32", True),
        ("10.0.1.0", "10.0.0.0/24", False),
        ("2001:db8::", "2001:db8::/64", True),
        ("10.0.0.9", "2001:db8::/64", False),
    ],
)
def test_the_first_and_the_last_address_of_a_range_are_nobodys(
    address: str, cidr: str, *, fits: bool
) -> None:
    assert _is_of_a_host(address, cidr) is fits


WRITTEN = {"auth_url": "http://k/v3", "username": "u", "password": "p", "project_name": "web"}


def test_a_preset_of_1_6_may_say_the_domain_that_the_provider_leaves_open() -> None:
    places = settings.parse(WRITTEN, OpenstackOptions).places
    assert chosen(places, {"project_domain_name": "Default"}) == places[0]
    with pytest.raises(BadRequest, match="this provider offers Default"):
        chosen(places, {"project_domain_name": "Elsewhere"})


def test_where_a_provider_lists_none_the_option_is_named_that_would() -> None:
    places = settings.parse(WRITTEN, OpenstackOptions).places
    with pytest.raises(BadRequest, match="lists none in its option regions"):
        chosen(places, {"region": "North"})
