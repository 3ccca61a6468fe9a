"""Short runs of bench/openstack.py: what is shown at length there, holds in little here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import (
    openstack_cells,
    openstack_endure,
    openstack_listing,
    openstack_recovery,
    openstack_storm,
)
from bench.openstack_stage import Stage, stage_of
from tests.openstack.ground import OpenStack


@pytest.fixture
def stage(openstack: OpenStack) -> Iterator[Stage]:
    with stage_of(openstack) as stage:
        yield stage


def test_a_server_deleted_behind_the_back_is_made_again(stage: Stage) -> None:
    found, wrong = openstack_recovery.show(stage, trials=1, vms=2, aim=60, idle_seconds=5)
    assert wrong == []
    # Nothing is made and nothing is asked for that nobody needs.
    assert {kind.split()[0] for kind in found["idle"]["calls_by_kind"]} <= {"GET", "list"}


def test_every_server_is_listed_page_by_page(stage: Stage) -> None:
    found, wrong = openstack_listing.show(stage, servers=6, copied=1, page_size=5, times=1, aim=100)
    assert wrong == []
    assert found["listed"] == 12
    assert found["pages"] >= 3


def test_no_intent_ever_has_two_servers_however_the_cloud_answers(stage: Stage) -> None:
    found, wrong = openstack_storm.show(stage, creates=4, presets=2, vms=2, lost=False)
    assert wrong == []
    assert found["intents_with_several_servers_ever"] == 0
    assert found["servers_ever"] == found["intents"] >= 4
    assert sum(found["harm_done"].values()) > 0


@pytest.mark.alone
def test_nothing_is_made_or_destroyed_while_a_cell_is_down(stage: Stage) -> None:
    found, wrong = openstack_cells.show(stage, times=1, seconds=12, vms=2)
    assert wrong == []
    assert "LISTING_INCOMPLETE" in found["conditions_meanwhile"]


@pytest.mark.alone
def test_exactly_the_declared_servers_are_left_after_bad_luck(stage: Stage) -> None:
    asked = {"presets": 3, "vms": 2, "minutes": 0.4, "every": 2, "rabbit_seconds": 0}
    found, wrong = openstack_endure.show(stage, **asked, seed="1")
    assert wrong == []
    assert found["blows"]
