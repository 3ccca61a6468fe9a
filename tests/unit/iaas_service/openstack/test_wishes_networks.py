"""Wishes about networks that contradict each other."""

from __future__ import annotations

import pytest

from iaas_service.domain import Spec
from iaas_service.drivers.openstack import wishes
from vmshepherd_kit.errors import BadRequest


@pytest.mark.parametrize("networks", ["none", "auto"])
def test_an_address_without_a_network_of_ones_own_is_refused(networks: str) -> None:
    with pytest.raises(BadRequest, match="networks and fixed_ip contradict each other"):
        wishes.options({"networks": networks, "fixed_ip": "10.0.0.9"})


def test_groups_that_would_protect_nothing_are_refused() -> None:
    lonely = Spec(image="debian", flavor="small", security_groups=("web",))
    with pytest.raises(BadRequest, match="protect no VM without a network"):
        wishes.require_fitting(lonely, wishes.options({"networks": "none"}))
    wishes.require_fitting(lonely, wishes.options({"networks": "auto"}))
