"""What presets still want, against what the quotas leave."""

from __future__ import annotations

from admin.demand import Wish, shortages
from vmshepherd.iaas.v1.iaas_service_pb2 import CATALOG_KIND_FLAVOR, CatalogEntry, Quota

SMALL = CatalogEntry(
    kind=CATALOG_KIND_FLAVOR, id="7", name="small", details={"vcpus": "2", "ram_mib": "512"}
)


def test_what_fits_is_not_told() -> None:
    quotas = [Quota(resource="vms", limit=5, used=3), Quota(resource="cores", limit=4, used=0)]
    assert list(shortages([Wish(flavor="small", vms=2)], quotas, [SMALL])) == []


def test_each_resource_that_is_short_is_told_with_its_numbers() -> None:
    quotas = [Quota(resource="vms", limit=5, used=3), Quota(resource="cores", limit=5, used=0)]
    assert list(shortages([Wish(flavor="7", vms=3)], quotas, [SMALL])) == [
        "3 vms more are wanted, and 2 are left (3 of 5 are used)",
        "6 cores more are wanted, and 5 are left (0 of 5 are used)",
    ]


def test_a_resource_without_limit_is_never_short() -> None:
    assert list(shortages([Wish(flavor="small", vms=99)], [Quota(resource="vms")], [])) == []


def test_a_limit_of_nothing_is_a_limit() -> None:
    quotas = [Quota(resource="vms", limit=0, used=0)]
    assert list(shortages([Wish(flavor="small", vms=1)], quotas, []))


def test_more_used_than_allowed_leaves_nothing() -> None:
    quotas = [Quota(resource="vms", limit=1, used=4)]
    [sentence] = shortages([Wish(flavor="small", vms=1)], quotas, [])
    assert "0 are left" in sentence


def test_a_flavor_that_nobody_knows_counts_as_a_vm() -> None:
    quotas = [Quota(resource="vms", limit=1, used=0), Quota(resource="cores", limit=1, used=0)]
    assert len(list(shortages([Wish(flavor="x", vms=2)], quotas, [SMALL]))) == 1
