"""Limits in the words of Nova and Cinder, and which of them leaves no room."""

from __future__ import annotations

from typing import Any, Final

from iaas_service.domain import Quota
from iaas_service.drivers.openstack import quotas
from iaas_service.drivers.openstack.choose import Thing

# Of Nova's `/limits` (Zed).
ABSOLUTE: Final[dict[str, Any]] = {
    "maxTotalInstances": 10,
    "maxTotalCores": 20,
    "maxTotalRAMSize": -1,
    "maxServerMeta": 128,
    "maxServerGroups": 10,
    "maxServerGroupMembers": 10,
    "totalRAMUsed": 512,
    "totalCoresUsed": 1,
    "totalInstancesUsed": 1,
    "totalServerGroupsUsed": 0,
}
NEED: Final = quotas.need(Thing(id="1", name="small", facts={"vcpus": 2, "ram_mib": 2048}))


def test_minus_one_is_no_limit() -> None:
    assert quotas.nova_quotas(ABSOLUTE) == [
        Quota(resource="vms", limit=10, used=1),
        Quota(resource="cores", limit=20, used=1),
        Quota(resource="ram_mib", limit=None, used=512),
        Quota(resource="server_groups", limit=10, used=0),
    ]


def test_a_limit_that_is_not_told_is_left_out() -> None:
    untold = {key: told for key, told in ABSOLUTE.items() if "Cores" not in key}
    assert [quota.resource for quota in quotas.nova_quotas(untold)] == [
        "vms",
        "ram_mib",
        "server_groups",
    ]
    assert quotas.cinder_quotas({"maxTotalVolumes": 10}) == []


def test_less_than_nothing_is_never_used() -> None:
    assert quotas.quota("ports", 10, -1) == Quota(resource="ports", limit=10, used=0)


def test_a_limit_that_was_lowered_below_what_is_used_bars_only_those_who_need_more_of_it() -> None:
    lowered = Quota(resource="server_groups", limit=1, used=3)
    assert quotas.shortage([lowered], [], NEED) is None
    assert quotas.shortage([lowered], [], {"server_groups": 1}) == lowered


def test_what_others_took_meanwhile_counts_as_used() -> None:
    cores = Quota(resource="cores", limit=6, used=2)
    assert quotas.shortage([cores], [NEED], NEED) is None
    assert quotas.shortage([cores], [NEED, NEED], NEED) == Quota(resource="cores", limit=6, used=6)
