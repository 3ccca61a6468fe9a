"""The judges of bench/openstack.py find what is planted, and nothing where nothing is wrong."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from bench.openstack_luck import Luck
from bench.openstack_stage import SUITE, Asked, Seen
from bench.openstack_suite import not_as_declared, repeated
from bench.openstack_watch import Foreign, Watch, without_reason
from iaas_service import marker
from iaas_service.domain import Marker
from vmshepherd.runtime.v1.event_pb2 import Event

VM = "0d9a3a5c-1f5e-4f0c-8a31-5d2a4a8d7c11"


def seen(server_id: str, *, request: int = 1, **more: Any) -> Seen:
    """A server of the preset `web`."""
    mark = Marker(
        suite_id=SUITE,
        preset="web",
        request_id=f"7c1d9f0e-0000-4000-8000-{request:012}",
        fencing_token=1,
        spec_hash="9f2c",
    )
    well = Seen(server_id, f"web-{request}", "ACTIVE", "", marker.write(mark), "")
    return replace(well, **more)


def asked(method: str, path: str, *, time: float = 100.0, body: bytes = b"") -> Asked:
    return Asked(1.0, time, "compute", method, path, body)


def written(vm_id: str, *, time: int, reason: str = "DEAD", evidence: str = "it is gone") -> Event:
    event = Event(
        kind="VM_TERMINATING", vm_id=vm_id, reason=reason, evidence={"evidence": evidence}
    )
    event.time.FromSeconds(time)
    return event


def test_as_many_active_servers_as_declared_are_as_declared() -> None:
    assert not_as_declared([seen("a"), seen("b", request=2)], {"web": 2}) == []


@pytest.mark.parametrize(
    "servers",
    [
        [seen("a")],
        [seen("a"), seen("b", request=2), seen("c", request=3)],
        [seen("a"), seen("b", request=2, status="SHUTOFF")],
        [seen("a"), seen("b", request=2, task="deleting")],
    ],
    ids=["too few", "too many", "one stopped", "one on its way out"],
)
def test_other_servers_than_declared_are_found(servers: list[Seen]) -> None:
    assert not_as_declared(servers, {"web": 2}) != []


def test_a_foreign_server_is_of_no_preset_whatever_it_is_called() -> None:
    whole = seen("a").metadata
    assert seen("a", metadata={}).preset == ""
    assert seen("a", metadata=whole | {marker.SUITE: "another"}).preset == ""
    assert seen("a", metadata={marker.SUITE: SUITE, marker.PRESET: "web"}).preset == ""


def test_two_live_servers_of_one_intent_are_found() -> None:
    assert repeated([seen("a"), seen("b")]) == {seen("a").request_id: ["a", "b"]}
    assert repeated([seen("a"), seen("b", task="deleting")]) == {}
    assert repeated([seen("a"), seen("b", request=2)]) == {}


def test_more_servers_than_declared_and_the_surge_are_found() -> None:
    watch = Watch(Mock(), {"web": 1})
    watch.judge([seen("a"), seen("b", request=2)])
    assert watch.wrong == []
    watch.judge([seen("a"), seen("b", request=2), seen("c", request=3)])
    assert watch.wrong == ["web: 3 servers, 2 more than declared"]


def test_a_destroy_with_its_reason_written_down_before_is_right() -> None:
    assert without_reason([asked("DELETE", f"/v2.1/servers/{VM}")], [written(VM, time=99)]) == []


@pytest.mark.parametrize(
    "events",
    [
        [],
        [written(VM, time=101)],
        [written(VM, time=99, reason="")],
        [written(VM, time=99, evidence="")],
        [written("another", time=99)],
    ],
    ids=["nothing", "too late", "no reason", "no evidence", "of another"],
)
@pytest.mark.parametrize(
    "call",
    [
        asked("DELETE", f"/v2.1/servers/{VM}"),
        asked("POST", f"/v2.1/servers/{VM}/action", body=b'{"forceDelete": null}'),
        asked("POST", f"/v2.1/servers/{VM}/action", body=b'{"rebuild": {}}'),
    ],
    ids=["delete", "force", "rebuild"],
)
def test_a_destroy_without_a_reason_before_it_is_found(call: Asked, events: list[Event]) -> None:
    assert without_reason([call], events) != []


def test_only_what_destroys_needs_a_reason() -> None:
    calls = [
        asked("GET", f"/v2.1/servers/{VM}"),
        asked("POST", "/v2.1/servers"),
        asked("POST", f"/v2.1/servers/{VM}/action", body=b'{"os-getConsoleOutput": {}}'),
    ]
    assert without_reason(calls, []) == []
    assert [call.is_create for call in calls] == [False, True, False]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """One where no time is spent on waiting."""
    monkeypatch.setattr(time, "sleep", Mock())
    return Mock()


def test_a_foreign_server_that_nova_still_makes_is_waited_for(stage: Mock) -> None:
    stage.ledger.asked = []
    stage.servers.side_effect = [[seen("a", status=status)] for status in ("BUILD", "ACTIVE")]
    foreign = Foreign(stage)
    foreign.made["a"] = "web-1"
    assert foreign.touched() == []


def test_a_server_that_is_about_to_stop_is_started_again_once_it_has(stage: Mock) -> None:
    luck = Luck(stage, Mock(), Mock(), Mock())
    luck.parked["a"] = 0.0
    stage.project.server.side_effect = [
        {"status": "ACTIVE", "OS-EXT-STS:task_state": "powering-off"},
        {"status": "SHUTOFF", "OS-EXT-STS:task_state": None},
    ]
    luck.unpark_all()
    stage.project.act.assert_called_once_with("a", "os-start")
    assert luck.wrong == []
