from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator import views
from orchestrator.board import Condition, Phase, Shown
from orchestrator.model import Pause, Plan, Process, Reason, Refusal, Terminate, VmId, VmStatus
from tests.support.given import NOW, judged, vm
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
    found = views.vm_views(WEB, DECLARED, SHOWN)
    assert [(each.vm_id, each.status) for each in found] == [
        ("a", pb.VM_STATUS_RUNNING),
        ("b", pb.VM_STATUS_UNHEALTHY),
    ]
    assert (found[1].last_verdict, found[1].last_probe_message) == ("UNHEALTHY", "refused")
    assert not any(each.outdated for each in found)
    outdated = views.vm_views(WEB, DECLARED, replace(SHOWN, judged=(judged("a", spec_hash="old"),)))
    assert outdated[0].outdated


def test_every_phase_and_status_has_a_name_in_the_contract() -> None:
    for phase in Phase:
        assert views.preset_view(WEB, None, Shown(phase=phase)).phase > 0
    for status in VmStatus:
        [shown] = views.vm_views(WEB, None, Shown(judged=(judged("a", status),)))
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


def test_a_plan_is_told_step_by_step() -> None:
    step = Terminate(vm=vm("a"), reason=Reason.SURPLUS, evidence="4 of 3")
    message = views.plan_message(Plan(steps=(step,), refusals=(Refusal("BUDGET_SPENT", "later"),)))
    [told] = message.steps
    assert (told.action, told.vm_id, told.reason) == (pb.STEP_ACTION_TERMINATE, "a", "SURPLUS")
    assert [each.code for each in message.refusals] == ["BUDGET_SPENT"]
