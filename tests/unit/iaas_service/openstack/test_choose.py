"""What a name or an id stands for; a guess is never made."""

from __future__ import annotations

import pytest

from iaas_service.drivers.openstack.choose import Kind, Thing, by_id_or_name
from vmshepherd_kit.errors import BadRequest, NotFound

IMAGE = Kind(noun="image", field="spec.image", missing="IMAGE_NOT_FOUND")
OURS = Thing(id="1", name="debian")
THEIRS = Thing(id="2", name="debian", rank=2)


def chosen(text: str, *things: Thing) -> Thing:
    return by_id_or_name(IMAGE, things, text, where="osk")


def test_an_id_is_meant_before_a_name_that_looks_like_it() -> None:
    impostor = Thing(id="3", name="1")
    assert chosen("1", impostor, OURS) is OURS


def test_of_the_same_name_the_nearer_one_is_meant() -> None:
    assert chosen("debian", THEIRS, OURS) is OURS


def test_two_of_the_same_rank_are_refused_with_their_ids() -> None:
    with pytest.raises(BadRequest, match=r"2 of the name 'debian' \(images 1, 3\)"):
        chosen("debian", OURS, Thing(id="3", name="debian"), THEIRS)


def test_what_is_missing_is_named_with_the_nearest_that_is_there() -> None:
    with pytest.raises(NotFound, match="did you mean 'debian'") as refusal:
        chosen("debain", OURS, Thing(id="4", name="ubuntu"))
    assert refusal.value.reason == "IMAGE_NOT_FOUND"
    assert [violation.field for violation in refusal.value.violations] == ["spec.image"]


def test_where_nothing_is_near_it_is_told_what_there_is_but_not_all_of_many() -> None:
    many = [Thing(id=str(n), name=f"flavor-{n:02}") for n in range(20)]
    with pytest.raises(NotFound, match=r"flavor-00, .*flavor-07 and 12 more"):
        chosen("zzz", *many)


def test_a_part_of_a_name_finds_nothing() -> None:
    with pytest.raises(NotFound):
        chosen("deb", OURS)
    with pytest.raises(NotFound):
        chosen("debian.*", OURS)


def test_where_there_is_none_at_all_it_says_so() -> None:
    with pytest.raises(NotFound, match="it has no image at all"):
        chosen("debian")
