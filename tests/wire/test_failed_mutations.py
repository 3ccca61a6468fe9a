"""Which words reach the orchestrator when a cloud fails to make or destroy a VM, over real gRPC.

The tables of patience (`orchestrator.failures`) and of what is never tried again go by them: each
key of these tables is a word that somebody gives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from iaas_service import domain
from iaas_service.drivers.simulated import SimulatedCloud, SimulatedOptions
from iaas_service.providers import Provider
from iaas_service.server import mount
from iaas_service.servicer import IaasServicer
from orchestrator import cycle
from orchestrator.backoff import BOOT_FAILED
from orchestrator.clients.iaas import Iaas
from orchestrator.failures import CLASSES
from orchestrator.hands import Hands, Order
from orchestrator.model import (
    Create,
    Fate,
    Intent,
    Outcome,
    Reason,
    RequestId,
    Terminate,
    Vm,
    VmId,
    VmState,
)
from vmshepherd.iaas.v1 import vm_pb2
from vmshepherd_kit import errors, testing
from vmshepherd_kit.clock import SeededChance, SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    BadRequest,
    Denied,
    NotFound,
    OutcomeUnknown,
    Refused,
    SessionLost,
    ShepherdError,
    StaleFencingToken,
    Throttled,
    Unavailable,
    Unsupported,
)

SUITE = Suite(suite_id="wire", state_dir=Path("/"), base_dir=Path("/"), embedded=False)
BORN = datetime(2030, 1, 1, tzinfo=UTC)

WITHOUT_A_CLASS = {
    "ALREADY_EXISTS": "a request id that was used for another VM: the next one is another",
    "REFUSED": "a gate of the service; what it is about may be over in a moment",
    "VERSION_MISMATCH": "no driver's",
    "RESUME_TOKEN_TOO_OLD": "no driver's",
    "INTERNAL": "a fault of the program",
}
"""Kinds of errors that wait shortly and try the same again, and why that is right."""


def kinds(root: type[ShepherdError] = ShepherdError) -> Iterator[type[ShepherdError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from kinds(kind)


ENDING = (SessionLost, StaleFencingToken)
"""These end the cycle, and are no outcome."""
OF_EACH_KIND = [kind("as the cloud says") for kind in kinds() if kind not in ENDING]
# Of the drivers, and of the service before them.
FINER = [
    (NotFound("no image", reason="IMAGE_NOT_FOUND"), "IMAGE_NOT_FOUND"),
    (NotFound("no flavor", reason="FLAVOR_NOT_FOUND"), "FLAVOR_NOT_FOUND"),
    (NotFound("no Neutron", reason="NO_SUCH_SERVICE"), "NOT_FOUND"),
    (BadRequest("no such region", reason="UNKNOWN_PLACE"), "BAD_REQUEST"),
    (BadRequest("no such option", reason="INVALID_SETTINGS"), "BAD_REQUEST"),
    (Denied("not yours", reason="OF_TOMORROW"), "DENIED"),
    (Unsupported("too old", reason="OF_TOMORROW"), "UNSUPPORTED"),
    (Unavailable("refuses connections", reason="CLOUD_UNREACHABLE"), "CLOUD_UNREACHABLE"),
    (Refused("no identity service there", reason="CLOUD_UNUSABLE"), "CLOUD_UNUSABLE"),
    (Throttled("asked to be left alone", reason="HELD_BACK"), "HELD_BACK"),
    (Throttled("as many calls as it takes", reason="TOO_MANY_AT_ONCE"), "TOO_MANY_AT_ONCE"),
    (Refused("too little time is left", reason="DEADLINE_TOO_SHORT"), "DEADLINE_TOO_SHORT"),
]


class FailingCloud(SimulatedCloud):
    """Has one answer for everything: an error of the test."""

    error: ShepherdError

    async def create(self, order: domain.Order) -> domain.Vm:
        raise self.error

    async def get(self, vm_ids: Sequence[domain.VmId]) -> Sequence[domain.Vm | ShepherdError]:
        return [self.error for _ in vm_ids]


@asynccontextmanager
async def hands(error: ShepherdError) -> AsyncIterator[Hands]:
    clock = SystemClock()
    cloud = FailingCloud(
        SimulatedOptions(), provider="sim", suite=SUITE, clock=clock, chance=SeededChance(5)
    )
    cloud.error = error
    provider = Provider.of("sim", "simulated", cloud, suite_id="wire")
    servicer = IaasServicer([provider], suite_id="wire", clock=clock, chance=SeededChance(3))
    async with testing.served([mount(servicer)]) as channel:
        iaas = Iaas([channel], clock=clock, tokens=dict)
        await iaas.discover()
        authority = SimpleNamespace(remaining=lambda: timedelta(minutes=1))
        yield Hands(
            iaas=iaas,
            authority=cast("Any", authority),
            journal=cast("Any", None),
            clock=clock,
            longest=timedelta(seconds=20),
        )
    await servicer.close()


def order() -> Order:
    spec = vm_pb2.VmSpec(image="debian", flavor="small")
    return Order(
        preset=cast("Any", "web"),
        declared=cast("Any", SimpleNamespace(vm_spec=spec)),
        provider="sim",
        fencing_token=1,
        seen=cast("Any", None),
        plan=cast("Any", None),
    )


async def created(error: ShepherdError) -> Outcome:
    request = RequestId("00000000-0000-4000-8000-000000000001")
    step = Create(Intent(request_id=request, name="web-1", spec_hash="9f2c"), "MISSING", "too few")
    async with hands(error) as able:
        return await able.create(step, order())


async def terminated(error: ShepherdError) -> Outcome:
    vm = Vm(vm_id=VmId("vm-1"), name="web-1", state=VmState.RUNNING, created=BORN)
    step = Terminate(vm=vm, reason=Reason.OPERATOR, evidence="as somebody wishes")
    async with hands(error) as able:
        return await able.terminate(step, order())


@pytest.mark.parametrize("error", OF_EACH_KIND, ids=lambda error: type(error).__name__)
async def test_each_kind_of_failed_create_has_a_class_or_none_on_purpose(
    error: ShepherdError,
) -> None:
    outcome = await created(error)
    assert outcome.fate is (Fate.UNKNOWN if isinstance(error, OutcomeUnknown) else Fate.FAILED)
    if outcome.fate is Fate.FAILED:
        assert outcome.reason == error.reason
        assert (outcome.reason in CLASSES) != (outcome.reason in WITHOUT_A_CLASS)


@pytest.mark.parametrize(("error", "word"), FINER, ids=lambda each: getattr(each, "reason", each))
async def test_what_a_person_must_mend_has_the_finest_word_that_patience_knows(
    error: ShepherdError, word: str
) -> None:
    outcome = await created(error)
    assert (outcome.fate, outcome.reason, outcome.message) == (Fate.FAILED, word, error.message)


@pytest.mark.parametrize("error", OF_EACH_KIND, ids=lambda error: type(error).__name__)
async def test_a_termination_fails_by_the_same_words(error: ShepherdError) -> None:
    outcome = await terminated(error)
    if isinstance(error, NotFound):
        assert outcome.fate is Fate.DONE, "what is gone was wished gone"
    elif outcome.fate is Fate.FAILED:
        assert outcome.reason == error.reason


def test_no_class_is_of_a_reason_that_nobody_gives() -> None:
    given = {error.reason for error in OF_EACH_KIND} | {error.reason for error, _ in FINER}
    assert set(CLASSES) <= given | {BOOT_FAILED}
    assert set(WITHOUT_A_CLASS) <= given


def test_what_is_never_tried_again_is_of_reasons_that_somebody_gives() -> None:
    given = {error.reason for error in OF_EACH_KIND}
    # Refusals of the gates: tests/wire/test_iaas_service.py.
    assert given | {"NOT_OURS", "NOT_THE_SAME_VM", "PROTECTED"} >= cycle._NEVER
