from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator import views
from orchestrator.board import Condition, Phase, Shown
from orchestrator.model import (
    Create,
    Intent,
    Keep,
    Method,
    Pause,
    Placement,
    Plan,
    Process,
    Reason,
    Refusal,
    Repair,
    RequestId,
    Terminate,
    VmId,
    VmStatus,
)
from tests.support.given import NOW, SERVING, judged, vm
from tests.support.shell import WEB, preset
from vmshepherd.orchestrator.v1 import view_pb2 as pb
from vmshepherd_kit.stamps import to_timestamp

DECLARED = preset(count=3, user_data="a secret", image="debian", panel_links={"shown": "http://x"})
SHOWN = Shown(
    phase=Phase.BLOCKED,
    conditions=(Condition("BACKOFF", "waits", NOW),),
    judged=(judged("b", VmStatus.UNHEALTHY), judged("a")),
    since={VmId("a"): (VmStatus.RUNNING, NOW)},
    holder="me",
    fencing_token=7,
    ended=NOW,
    lasted=timedelta(seconds=1),
    probe_messages={VmId("b"): ("UNHEALTHY", "refused")},
    pause=Pause(processes=frozenset({Process.HEALTH}), actor="anna", since=NOW),
)


def test_a_preset_is_shown_with_all_that_is_known_and_without_its_user_data() -> None:
    view = views.preset_view(WEB, DECLARED, SHOWN)
    assert view.phase == pb.PRESET_PHASE_BLOCKED
    assert view.vms_by_status == {"RUNNING": 1, "UNHEALTHY": 1}
    assert (view.count, view.image, view.owner, view.fencing_token) == (3, "debian", "me", 7)
    assert [each.code for each in view.conditions] == ["BACKOFF"]
    assert list(view.pause.processes) == [pb.PROCESS_HEALTH]
    assert view.pause.since_time == to_timestamp(NOW)
    assert "secret" not in str(view)
    assert view.user_data_digest.endswith("8 bytes")


def test_vms_are_shown_in_order_of_their_ids() -> None:
    found = views.vm_views(WEB, SHOWN)
    assert [(each.vm_id, each.status) for each in found] == [
        ("a", pb.VM_STATUS_RUNNING),
        ("b", pb.VM_STATUS_UNHEALTHY),
    ]
    assert (found[1].last_verdict, found[1].last_probe_message) == ("UNHEALTHY", "refused")
    assert not any(each.outdated for each in found)


def test_a_vm_says_why_it_leaves_and_until_when_it_is_kept() -> None:
    kept = replace(SERVING, kept_since=NOW)
    vms = (
        judged("a", is_outdated=True, leaves_for=Reason.OUTDATED),
        judged("b", VmStatus.KEPT, memory=kept),
        # Its memory of a study that ended otherwise says nothing.
        judged("c", VmStatus.TERMINATED, memory=kept),
    )
    day = timedelta(days=1)
    shown = Shown(judged=vms, keep_failed_time=day, protections=frozenset({VmId("b")}))
    found = views.vm_views(WEB, shown)
    assert [each.outdated for each in found] == [True, False, False]
    assert [each.leaving_reason for each in found] == ["OUTDATED", "", ""]
    assert [each.protected for each in found] == [False, True, False]
    assert found[1].kept_until_time == to_timestamp(NOW + day)
    assert not found[0].HasField("kept_until_time")
    assert not found[2].HasField("kept_until_time")
    assert views.preset_view(WEB, DECLARED, shown).outdated == 1


def test_every_phase_and_status_has_a_name_in_the_contract() -> None:
    for phase in Phase:
        assert views.preset_view(WEB, None, Shown(phase=phase)).phase > 0
    for status in VmStatus:
        [shown] = views.vm_views(WEB, Shown(judged=(judged("a", status),)))
        assert shown.status > 0


def test_what_differs_in_every_cycle_is_not_stored() -> None:
    view, _ = views.stored(WEB, DECLARED, SHOWN)
    assert not view.HasField("last_cycle_time")
    assert not view.HasField("last_cycle_duration")


def test_what_a_source_says_now_takes_the_place_of_what_it_said() -> None:
    view = pb.PresetView(name="web", count=1, panel_links={"old": "http://old"})
    view.findings.add(message="was wrong")
    views.declare(view, DECLARED)
    assert view.count == 3
    assert view.panel_links == {"shown": "http://x"}
    assert not view.findings


def test_a_plan_is_told_step_by_step_with_the_clause_that_decided() -> None:
    placed = Intent(
        request_id=RequestId("r"), name="web-1", spec_hash="s", placement=Placement(flavor="big")
    )
    steps = (
        Create(placed, "MISSING", "2 of 3 are there"),
        Terminate(vm=vm("a"), reason=Reason.SURPLUS, evidence="4 of 3"),
        Repair(vm=vm("b"), method=Method.REBOOT, evidence="refused"),
        Repair(vm=vm("c"), method=Method.REBUILD, evidence="refused"),
        Keep(vm=vm("d"), reason=Reason.DEAD, evidence="ended"),
    )
    message = views.plan_message(Plan(steps=steps, refusals=(Refusal("BUDGET_SPENT", "later"),)))
    assert [(each.action, each.vm_id, each.reason) for each in message.steps] == [
        (pb.STEP_ACTION_CREATE, "", "MISSING"),
        (pb.STEP_ACTION_TERMINATE, "a", "SURPLUS"),
        (pb.STEP_ACTION_REBOOT, "b", "UNHEALTHY"),
        (pb.STEP_ACTION_REBUILD, "c", "UNHEALTHY"),
        (pb.STEP_ACTION_KEEP, "d", "DEAD"),
    ]
    assert message.steps[0].evidence == "web-1 (flavor big): 2 of 3 are there"
    clauses = [each.clause for each in message.steps]
    assert clauses == [
        "count",
        "count, policy.scale_in_order",
        "policy.reboots",
        "policy.rebuilds",
        "policy.keep_failed, policy.keep_failed_time",
    ]
    [refusal] = message.refusals
    assert (refusal.code, refusal.message) == ("BUDGET_SPENT", "later")
    assert "policy.max_deletions_per_cycle" in refusal.clause


def test_a_condition_names_its_clause_and_words_of_a_cloud_have_none() -> None:
    assert views.condition(Condition("NO_ROOM", "full", NOW)).clause == "policy.max_unavailable"
    assert views.condition(Condition("QUOTA_EXCEEDED", "full", NOW)).clause == ""
