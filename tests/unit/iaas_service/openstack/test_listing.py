"""How one page is sorted: what is ours, what cannot be seen, and what is no VM any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from iaas_service.domain import VmId
from iaas_service.drivers.openstack.api import Api
from iaas_service.drivers.openstack.listing import Reader, _Reading
from iaas_service.drivers.openstack.memory import Memory
from tests.unit.iaas_service.openstack.captured import ACTIVE, BUILDING, PARTIAL
from vmshepherd_kit.errors import NotFound


def sorted_(*page: dict[str, Any]) -> _Reading:
    nobody = cast(Api, None)
    reading = _Reading()
    reader(nobody)._sort(page, reading)
    return reading


def reader(api: Api) -> Reader:
    horizon = timedelta(seconds=120)
    return Reader(api, Memory(), suite_id="contract", page_size=None, horizon=horizon)


def test_ours_are_known_by_the_marker_alone() -> None:
    stranger = {**BUILDING, "name": ACTIVE["name"]}
    reading = sorted_(ACTIVE, stranger)
    assert set(reading.ours) == {ACTIVE["id"]}
    assert reading.hidden == set()


def test_a_server_without_name_and_metadata_is_hidden_not_a_stranger() -> None:
    reading = sorted_(PARTIAL)
    assert (reading.ours, reading.hidden) == ({}, {PARTIAL["id"]})


def test_what_the_cloud_keeps_for_a_while_is_neither_ours_nor_hidden() -> None:
    reading = sorted_({**ACTIVE, "status": "SOFT_DELETED"}, {**PARTIAL, "status": "SOFT_DELETED"})
    assert (reading.ours, reading.hidden) == ({}, set())


@pytest.mark.parametrize("text", ["", "../flavors", "a b", "x" * 300])
async def test_what_can_be_no_id_is_not_asked_for_whatever_it_would_lead_to(text: str) -> None:
    nobody = cast(Api, None)
    with pytest.raises(NotFound):
        await reader(nobody).get(VmId(text))
