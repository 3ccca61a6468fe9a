"""Tasks that are under way in a VM that is off or on, whichever Nova notes first."""

from __future__ import annotations

import pytest

from iaas_service.domain import VmState
from iaas_service.drivers.openstack import states
from tests.unit.iaas_service.openstack.captured import ACTIVE


@pytest.mark.parametrize("task", ["rebooting", "powering-off", "rebuilding"])
def test_a_vm_that_is_off_while_a_task_is_under_way_is_not_parked(task: str) -> None:
    told = {**ACTIVE, "OS-EXT-STS:task_state": task, "OS-EXT-STS:power_state": 4}
    assert states.state(told) is VmState.TRANSITIONING
