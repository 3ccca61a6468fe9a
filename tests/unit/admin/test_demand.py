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


def test_each_vm_needs_as_many_ports_as_it_has_networks() -> None:
    wishes = [Wish(flavor="small", vms=2, ports=2), Wish(flavor="small", vms=1, ports=0)]
    [sentence] = shortages(wishes, [Quota(resource="ports", limit=10, used=7)], [])
    assert sentence == "4 ports more are wanted, and 3 are left (7 of 10 are used)"


def test_of_several_places_each_counts_what_is_wanted_there_and_the_first_what_names_none() -> None:
    places = ("project a in region North", "project b in region North")
    quotas = [Quota(resource=f"vms ({place})", limit=1, used=0) for place in places]
    assert list(shortages([Wish(flavor="small", vms=2)], quotas, [])) == [
        "2 vms (project a in region North) more are wanted, and 1 are left (0 of 1 are used)"
    ]
    [sentence] = shortages([Wish(flavor="small", vms=2, project="b")], quotas, [])
    assert sentence.startswith("2 vms (project b in region North) more are wanted")
    both = [Wish(flavor="small", vms=1), Wish(flavor="small", vms=1, project="b")]
    assert not list(shortages(both, quotas, []))


def test_a_project_and_a_region_are_chosen_each_on_its_own() -> None:
    quotas = [
        Quota(resource=f"vms ({place})", limit=0, used=0)
        for place in ("region North", "region South")
    ]
    [sentence] = shortages([Wish(flavor="small", vms=1, region="South")], quotas, [])
    assert "(region South)" in sentence
    assert not list(shortages([Wish(flavor="small", vms=1, region="Sou")], quotas, []))
