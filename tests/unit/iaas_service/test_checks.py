"""A provider is checked without a change to it, and what is wrong is told, never raised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iaas_service import checks
from iaas_service.domain import Check, CheckStatus, Spec
from iaas_service.drivers.simulated import SimulatedCloud, SimulatedOptions
from iaas_service.drivers.simulated.options import CallError, Failure, Failures
from iaas_service.providers import Provider
from iaas_service.testing import SUITE_ID, an_order
from vmshepherd_kit.clock import SeededChance
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    BadRequest,
    Denied,
    NotFound,
    ShepherdError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from vmshepherd_kit.testing import FakeClock

NOWHERE = Path("/nowhere")
SUITE = Suite(suite_id=SUITE_ID, state_dir=NOWHERE, base_dir=NOWHERE, embedded=False)
FINE = Check(name="credentials", status=CheckStatus.OK, message="user demo")


class Knowing(SimulatedCloud):
    """A cloud whose driver checks what a test says."""

    found: Sequence[Check] = ()

    async def check(self) -> Sequence[Check]:
        return self.found

    async def check_spec(self, preset: str, spec: Spec) -> str:
        if spec.image == "debian":
            return f"image debian of {preset}"
        raise NotFound(f"there is no image {spec.image!r}", reason="IMAGE_NOT_FOUND")


def provider(options: SimulatedOptions | None = None, kind: type = SimulatedCloud) -> Provider:
    cloud: SimulatedCloud = kind(
        options or SimulatedOptions(),
        provider="sim",
        suite=SUITE,
        clock=FakeClock(),
        chance=SeededChance(1),
    )
    return Provider.of("sim", "simulated", cloud, suite_id=SUITE_ID)


async def found(of: Provider) -> dict[str, Check]:
    return {check.name: check for check in await checks.of_provider(of)}


async def test_of_a_driver_that_checks_nothing_listing_and_quota_are() -> None:
    all_ = await found(provider(SimulatedOptions(quota=5)))
    assert list(all_) == ["listing", "quota"]
    assert {check.status for check in all_.values()} == {CheckStatus.OK}
    assert all_["quota"].message == "vms 0 of 5"


async def test_a_quota_that_is_used_up_is_wrong() -> None:
    full = provider(SimulatedOptions(quota=1))
    await full.cloud.create(an_order())
    quota = (await found(full))["quota"]
    assert (quota.status, quota.message) == (CheckStatus.WRONG, "vms 1 of 1")
    assert quota.way_out


async def test_a_list_that_is_not_whole_is_wrong() -> None:
    listing = (await found(provider(SimulatedOptions(failures=Failures(list_incomplete=1)))))[
        "listing"
    ]
    assert listing.status is CheckStatus.WRONG
    assert "a cell did not answer in time" in listing.message


async def test_a_listing_that_fails_hides_no_quota() -> None:
    failing = CallError(probability=1, reason=Failure.UNAVAILABLE)
    all_ = await found(provider(SimulatedOptions(failures=Failures(list_error=failing))))
    assert all_["listing"].status is CheckStatus.WRONG
    assert "iaas.providers.sim.options" in all_["listing"].way_out
    assert all_["quota"].status is CheckStatus.OK


async def test_the_drivers_own_checks_come_first() -> None:
    knowing = provider(kind=Knowing)
    assert isinstance(knowing.cloud, Knowing)
    knowing.cloud.found = [FINE]
    assert list(await found(knowing)) == ["credentials", "listing", "quota"]


async def test_behind_what_bars_everything_the_cloud_is_not_asked_again() -> None:
    knowing = provider(kind=Knowing)
    assert isinstance(knowing.cloud, Knowing)
    wrong = Check(name="credentials", status=CheckStatus.WRONG, message="no", bars=True)
    knowing.cloud.found = [wrong]
    all_ = await found(knowing)
    assert all_["listing"].status is all_["quota"].status is CheckStatus.UNCHECKED
    assert not knowing.cloud.calls


async def test_what_is_wrong_and_bars_nothing_keeps_nothing_from_being_checked() -> None:
    knowing = provider(kind=Knowing)
    assert isinstance(knowing.cloud, Knowing)
    knowing.cloud.found = [Check(name="clock", status=CheckStatus.WRONG, message="late")]
    assert (await found(knowing))["quota"].status is CheckStatus.OK


async def test_specs_are_told_in_order_and_none_hides_another() -> None:
    specs: list[tuple[str, Spec | ShepherdError]] = [
        ("a", Spec(image="debain")),
        ("b", Spec(image="debian")),
        ("c", BadRequest("metadata")),
    ]
    first, second, third = await checks.of_specs(provider(kind=Knowing), specs)
    assert isinstance(first, NotFound)
    assert second == "image debian of b"
    assert isinstance(third, BadRequest)


async def test_a_driver_that_only_knows_by_creating_says_so() -> None:
    told = await checks.of_specs(provider(), [("web", Spec(image="debian"))])
    assert isinstance(told[0], Unsupported)


def test_each_kind_of_failure_has_a_way_out_of_its_own() -> None:
    errors = [Unauthenticated("who"), Denied("no"), Unavailable("away")]
    ways = {checks.finding(provider(), "listing", error).way_out for error in errors}
    assert len(ways) == len(errors)
    assert "" not in ways
