from __future__ import annotations

import re
from pathlib import Path

import pytest

from iaas_service.domain import VmState
from iaas_service.drivers.openstack import states
from tests.unit.iaas_service.openstack.captured import ACTIVE, BUILDING, FAILED, PARTIAL

DOCS = Path(__file__).parents[4] / "docs"
PARKED = ("SHUTOFF", "SUSPENDED", "PAUSED", "SHELVED", "SHELVED_OFFLOADED", "RESCUE")
IN_HANDS = (
    "RESIZE",
    "VERIFY_RESIZE",
    "REVERT_RESIZE",
    "MIGRATING",
    "REBOOT",
    "HARD_REBOOT",
    "PASSWORD",
)


def state(status: str, task: str | None = None, power: int = 1) -> VmState:
    told = {"OS-EXT-STS:task_state": task, "OS-EXT-STS:power_state": power}
    return states.state({**ACTIVE, "status": status, **told})


def test_what_a_real_nova_said_is_understood() -> None:
    assert states.state(BUILDING) is VmState.PENDING
    assert states.state(ACTIVE) is VmState.RUNNING
    assert states.state(FAILED) is VmState.ERROR
    assert states.state(PARTIAL) is VmState.UNKNOWN


@pytest.mark.parametrize("status", PARKED)
def test_what_somebody_parked_is_stopped_and_not_dead(status: str) -> None:
    assert state(status) is VmState.STOPPED


@pytest.mark.parametrize("status", IN_HANDS)
def test_what_is_under_somebodys_hands_is_in_transition(status: str) -> None:
    assert state(status) is VmState.TRANSITIONING


@pytest.mark.parametrize("status", ["UNKNOWN", "SOMETHING_NEW", ""])
def test_what_nobody_knows_is_unknown(status: str) -> None:
    assert state(status) is VmState.UNKNOWN
    assert state(status, task="deleting") is VmState.UNKNOWN


@pytest.mark.parametrize("status", ["DELETED", "SOFT_DELETED"])
def test_what_is_deleted_is_only_a_record(status: str) -> None:
    assert states.is_deleted({**ACTIVE, "status": status})
    assert state(status) is VmState.TERMINATED


def test_what_the_cloud_keeps_for_a_while_is_gone_for_us() -> None:
    assert states.is_reclaimed({**ACTIVE, "status": "SOFT_DELETED"})
    # Of this one the cloud's own 404 follows within a moment, and that alone is proof.
    assert not states.is_reclaimed({**ACTIVE, "status": "DELETED"})


@pytest.mark.parametrize("status", ["ACTIVE", "SHUTOFF", "ERROR", "BUILD"])
@pytest.mark.parametrize("task", ["deleting", "soft-deleting"])
def test_what_is_being_deleted_is_on_its_way_out_whatever_it_was(status: str, task: str) -> None:
    assert state(status, task) is VmState.DELETING


@pytest.mark.parametrize("task", ["powering-off", "suspending", "shelving", "rescuing"])
def test_a_vm_with_a_task_of_somebodys_is_in_transition(task: str) -> None:
    assert state("ACTIVE", task) is VmState.TRANSITIONING


def test_a_vm_that_is_being_started_is_not_parked_any_more() -> None:
    assert state("SHUTOFF", "powering-on") is VmState.TRANSITIONING


def test_a_vm_of_which_an_image_is_taken_runs_on() -> None:
    assert state("ACTIVE", "image_uploading") is VmState.RUNNING


def test_a_failed_vm_that_is_being_restarted_is_not_given_up() -> None:
    assert state("ERROR", "rebooting_hard") is VmState.TRANSITIONING
    assert state("REBUILD", "rebuild_spawning") is VmState.PENDING


def test_a_vm_that_shut_itself_down_is_stopped_before_nova_notes_it() -> None:
    assert state("ACTIVE", power=4) is VmState.STOPPED


def test_a_vm_that_crashed_is_for_its_health_check_to_find() -> None:
    assert state("ACTIVE", power=6) is VmState.RUNNING
    assert states.cloud_state({**ACTIVE, "OS-EXT-STS:power_state": 6}) == "ACTIVE (power CRASHED)"


def test_people_see_status_and_task() -> None:
    assert states.cloud_state(BUILDING) == "BUILD/scheduling"
    assert states.cloud_state(ACTIVE) == "ACTIVE"


def test_the_table_for_people_is_the_one_of_the_driver() -> None:
    text = (DOCS / "openstack.md").read_text()
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| `([A-Z]+)` \|", text, re.MULTILINE)
    told = {status: row[1] for row in rows for status in re.findall(r"`([A-Z_]+)`", row[0])}
    assert told == {status: found.name for status, found in states.STATUSES.items()}
