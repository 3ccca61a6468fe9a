"""Placement, of which Nova learns where VMs fit: what the doctor says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from iaas_service.domain import CheckStatus
from tests.openstack.driver import checked, driver
from tests.openstack.faults import Answer, Closed, Empty, Fault, Page, Refusal
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy


@dataclass(frozen=True, kw_only=True)
class Unnamed(Fault):
    """A login whose catalogue lacks a service."""

    service: str

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        said = json.loads(answer.body)
        catalog = said["token"]["catalog"]
        said["token"]["catalog"] = [each for each in catalog if each["type"] != self.service]
        return replace(answer, body=json.dumps(said).encode())


async def test_placement_is_asked_once_and_for_its_versions_alone(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    with proxy.counting() as calls:
        found = await checked(driver(project, auth_url=proxy.auth_url))
    assert found["Placement"].status is CheckStatus.OK
    assert found["Placement"].message == proxy.url("placement")
    asked = {call: n for call, n in calls.items() if call.startswith("placement")}
    assert asked == {"placement GET /": 1}


@pytest.mark.parametrize(
    "fault",
    [
        Closed(forwarded=False),
        Refusal(status=503, forwarded=False),
        Refusal(status=403, forwarded=False),
        Page(forwarded=False),
        Empty(key="somebody_elses"),
    ],
    ids=["closed", "away", "refused", "page", "another"],
)
async def test_a_placement_that_does_not_answer_means_that_creates_fail(
    project: Project, proxy: Proxy, fault: Fault
) -> None:
    proxy.on("placement", "GET", "/", fault)
    found = await checked(driver(project, auth_url=proxy.auth_url))
    wrong = {name: check for name, check in found.items() if check.status is not CheckStatus.OK}
    assert list(wrong) == ["Placement"]
    assert wrong["Placement"].status is CheckStatus.WRONG
    assert not wrong["Placement"].bars
    assert wrong["Placement"].message.startswith("Placement of osk")
    assert 'creates fail with "No valid host"' in wrong["Placement"].message
    assert "have the cloud's administrator look at Placement" in wrong["Placement"].way_out


async def test_a_placement_that_the_catalogue_does_not_name_is_nobodys_fault(
    project: Project, proxy: Proxy
) -> None:
    proxy.on("identity", "POST", "/auth/tokens", Unnamed(service="placement"))
    found = await checked(driver(project, auth_url=proxy.auth_url))
    assert found["Placement"].status is CheckStatus.UNCHECKED
    assert "the catalogue does not name it" in found["Placement"].message
    assert {found[name].status for name in ("Nova", "offers")} == {CheckStatus.OK}


@pytest.mark.alone
async def test_while_placement_is_away_nova_says_what_the_doctor_foretold(
    openstack: OpenStack, project: Project
) -> None:
    with openstack.without("placement-api"):
        found = await checked(driver(project))
        assert found["Placement"].status is CheckStatus.WRONG
        assert "is out of reach" in found["Placement"].message
        server_id = project.order("homeless")
        fault = openstack.wait_for_fault(project, server_id)
    assert "No valid host" in fault
