from __future__ import annotations

from datetime import timedelta

import pytest

from iaas_service.drivers.openstack.circuit import Circuit
from vmshepherd_kit.errors import Throttled, Unavailable
from vmshepherd_kit.testing import FakeClock

INTERVAL = timedelta(seconds=5)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def circuit(clock: FakeClock) -> Circuit:
    return Circuit("Nova of here", clock, failures=3, interval=INTERVAL)


def fail(circuit: Circuit, times: int = 3) -> None:
    for _ in range(times):
        with circuit.passing():
            circuit.failed("it refuses connections")


def test_calls_pass_while_some_of_them_fail(circuit: Circuit) -> None:
    fail(circuit, 2)
    with circuit.passing():
        circuit.succeeded()
    fail(circuit, 2)
    with circuit.passing():
        pass


def test_after_three_failures_in_a_row_callers_are_told_at_once(circuit: Circuit) -> None:
    fail(circuit)
    with pytest.raises(Unavailable, match=r"Nova of here.*refuses connections") as told:
        circuit.passing().__enter__()
    assert told.value.reason == "CLOUD_UNREACHABLE"
    assert told.value.retry_after == INTERVAL


async def test_one_call_an_interval_probes_and_the_others_are_refused(
    circuit: Circuit, clock: FakeClock
) -> None:
    fail(circuit)
    await clock.advance(INTERVAL)
    with circuit.passing(), pytest.raises(Unavailable):
        circuit.passing().__enter__()


async def test_a_probe_that_fails_keeps_it_open_for_another_interval(
    circuit: Circuit, clock: FakeClock
) -> None:
    fail(circuit)
    await clock.advance(INTERVAL)
    fail(circuit, 1)
    await clock.advance(INTERVAL - timedelta(seconds=1))
    with pytest.raises(Unavailable):
        circuit.passing().__enter__()


async def test_a_probe_that_succeeds_closes_it(circuit: Circuit, clock: FakeClock) -> None:
    fail(circuit)
    await clock.advance(INTERVAL)
    with circuit.passing():
        circuit.succeeded()
    with circuit.passing(), circuit.passing():
        pass


async def test_a_probe_that_was_cancelled_lets_the_next_one_through(
    circuit: Circuit, clock: FakeClock
) -> None:
    fail(circuit)
    await clock.advance(INTERVAL)
    with circuit.passing():
        pass
    with circuit.passing():
        circuit.succeeded()
    assert not circuit.is_open


async def test_a_service_that_wants_rest_gets_it(circuit: Circuit, clock: FakeClock) -> None:
    circuit.rest(timedelta(seconds=3))
    with pytest.raises(Throttled) as told:
        circuit.passing().__enter__()
    assert told.value.retry_after == timedelta(seconds=3)
    await clock.advance(timedelta(seconds=3))
    with circuit.passing():
        pass


async def test_no_service_is_left_alone_for_ever(circuit: Circuit, clock: FakeClock) -> None:
    circuit.rest(timedelta(days=1))
    await clock.advance(timedelta(minutes=1))
    with circuit.passing():
        pass
