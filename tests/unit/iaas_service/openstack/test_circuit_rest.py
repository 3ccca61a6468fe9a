"""The rest that a service asks for, when it asks more than once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from iaas_service.drivers.openstack.circuit import Circuit
from vmshepherd_kit.errors import Throttled
from vmshepherd_kit.testing import FakeClock


async def test_a_shorter_rest_that_is_asked_for_later_shortens_none() -> None:
    clock = FakeClock()
    circuit = Circuit("Nova of here", clock)
    circuit.rest(timedelta(seconds=30))
    circuit.rest(timedelta(seconds=1))
    await clock.advance(timedelta(seconds=29))
    with pytest.raises(Throttled) as told:
        circuit.passing().__enter__()
    assert told.value.reason == "HELD_BACK"
