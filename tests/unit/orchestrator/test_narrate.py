from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import (
    Create,
    Fate,
    Intent,
    Keep,
    Memory,
    Method,
    Outcome,
    Placement,
    Plan,
    Probe,
    Reason,
    Refusal,
    Removal,
    Repair,
    RequestId,
    Terminate,
    Verdict,
    VmId,
    VmStatus,
)
from orchestrator.narrate import (
    Telling,
    Weight,
    announce,
    changes,
    conditions,
    edits,
    probe_changes,
    report,
)
from tests.support.given import HEALTHY, NOW, UNHEALTHY, UNKNOWN, checked, judged, seen, vm, vms

INTENT = Intent(request_id=RequestId("r"), name="web-1", spec_hash="spec-1", attempts=1)
CREATE = Create(INTENT, "MISSING", "2 of 3 VMs are there")
SICK = vm("a", cloud_state="ACTIVE", image="debian-13", flavor="small", zone="az1")
TERMINATE = Terminate(vm=SICK, reason=Reason.UNHEALTHY, evidence="it fails")
REBOOT = Repair(vm=SICK, method=Method.REBOOT, evidence="it fails")
REBUILD = replace(REBOOT, method=Method.REBUILD)
KEEP = Keep(vm=SICK, reason=Reason.BOOT_TIMEOUT, evidence="it never came up")
FACTS = {
    "state": "RUNNING",
    "cloud_state": "ACTIVE",
    "created": "2029-12-29T12:00:00+00:00",
    "spec_hash": "spec-1",
    "request_id": "request-of-a",
    "image": "debian-13",
    "flavor": "small",
    "zone": "az1",
}


def test_what_is_about_to_be_done_is_told_with_its_reason_and_evidence() -> None:
    create, terminate = announce(CREATE), announce(TERMINATE)
    assert (create.kind, create.reason) == ("VM_CREATING", "MISSING")
    assert "attempt 2" in create.message
    assert create.evidence["request_id"] == "r"
    assert (terminate.kind, terminate.reason, terminate.vm_id) == (
        "VM_TERMINATING",
        "UNHEALTHY",
        "a",
    )
    assert terminate.evidence == {
        "evidence": "it fails",
        "clause": "healthcheck.fall, healthcheck.min_failing_time",
        **FACTS,
    }


@pytest.mark.parametrize(
    ("step", "kind", "reason", "clause"),
    [
        (REBOOT, "VM_REBOOTING", "UNHEALTHY", "policy.reboots"),
        (REBUILD, "VM_REBUILDING", "UNHEALTHY", "policy.rebuilds"),
        (KEEP, "VM_KEPT", "BOOT_TIMEOUT", "policy.keep_failed, policy.keep_failed_time"),
    ],
)
def test_what_is_done_instead_of_destroying_is_told_in_its_own_words(
    step: Repair | Keep, kind: str, reason: str, clause: str
) -> None:
    told = announce(step, {"console": "Kernel panic"})
    assert (told.kind, told.reason, told.vm_id, told.weight) == (kind, reason, "a", Weight.WARNING)
    assert step.evidence in told.message
    assert told.evidence == {
        "evidence": step.evidence,
        "clause": clause,
        "console": "Kernel panic",
        **FACTS,
    }


def test_a_create_tells_what_was_chosen_for_it_and_only_that() -> None:
    intent = replace(INTENT, placement=Placement(flavor="large"))
    step = Create(intent, "REPLACEMENT", "one leaves")
    facts = {"request_id": "r", "spec_hash": "spec-1", "flavor": "large"}
    assert announce(step).evidence == {**facts, "clause": "policy.max_surge"}
    done = report(Outcome(step=step, fate=Fate.DONE, vm_id=VmId("a")))
    assert done is not None
    assert (done.vm_id, done.evidence) == ("a", facts)


def test_what_became_of_a_step_is_told_unless_it_was_not_tried() -> None:
    def told(step: Create | Terminate | Repair | Keep, fate: Fate) -> tuple[str, Weight] | None:
        telling = report(Outcome(step=step, fate=fate, message="the cloud said"))
        return (telling.kind, telling.weight) if telling else None

    info, warning = Weight.INFO, Weight.WARNING
    fates = [Fate.DONE, Fate.FAILED, Fate.UNKNOWN, Fate.UNTRIED]
    assert [told(CREATE, fate) for fate in fates] == [
        ("VM_CREATED", info),
        ("CREATE_FAILED", warning),
        ("CREATE_UNKNOWN", warning),
        None,
    ]
    for step, done, failed in (
        (TERMINATE, "VM_TERMINATED", "TERMINATE_FAILED"),
        (REBOOT, "VM_REBOOTED", "REPAIR_FAILED"),
        (REBUILD, "VM_REBUILT", "REPAIR_FAILED"),
    ):
        expected = [(done, info), (failed, warning), (failed, warning), None]
        assert [told(step, fate) for fate in fates] == expected


def test_a_vm_that_is_kept_is_told_of_once() -> None:
    assert report(Outcome(step=KEEP, fate=Fate.DONE)) is None


def test_what_failed_about_a_repair_is_told_in_the_words_of_the_cloud() -> None:
    told = report(
        Outcome(step=REBOOT, fate=Fate.FAILED, reason="BUDGET_SPENT", message="20 in 10 min")
    )
    assert told is not None
    assert (told.reason, told.vm_id, told.message) == (
        "BUDGET_SPENT",
        "a",
        "rebooting a: 20 in 10 min",
    )


def test_a_vm_that_comes_and_one_that_changes_are_told_whole_enough_to_replay_them() -> None:
    now = replace(judged("a", VmStatus.UNHEALTHY), vm=SICK)
    for before, kind in (({}, "VM_SEEN"), ({VmId("a"): VmStatus.RUNNING}, "VM_STATUS")):
        [told] = changes(before, seen(checked(1), [SICK]), Plan(judged=(now,)))
        assert (told.kind, told.reason, told.evidence) == (kind, "UNHEALTHY", FACTS)


def probe_told(before: dict[str, Probe], now: dict[str, Probe]) -> list[tuple[str, str, str]]:
    shown = {VmId(name): (each.verdict.name, each.message) for name, each in before.items()}
    probes = {VmId(name): each for name, each in now.items()}
    told = list(probe_changes(shown, seen(checked(2), vms("ab"), probes=probes)))
    assert {each.kind for each in told} <= {"VM_PROBE"}
    return [(each.vm_id, each.reason, each.message) for each in told]


def test_a_verdict_is_told_when_it_is_the_first_and_when_it_changes() -> None:
    assert probe_told({"a": HEALTHY}, {"a": UNHEALTHY, "b": HEALTHY}) == [
        ("a", "UNHEALTHY", "connection refused"),
        ("b", "HEALTHY", ""),
    ]
    assert probe_told({"a": UNHEALTHY}, {"a": UNKNOWN}) == [("a", "UNKNOWN", "no descriptor left")]


def test_the_same_verdict_in_other_words_is_no_news() -> None:
    other = Probe(Verdict.UNHEALTHY, "timed out after 3.01 s")
    assert probe_told({"a": UNHEALTHY}, {"a": other}) == []


def test_a_vm_that_is_not_probed_any_more_is_told_once() -> None:
    assert probe_told({"a": HEALTHY, "b": UNKNOWN}, {}) == [("a", "UNKNOWN", "not probed any more")]
    # Nothing was shown of it after that cycle, and what is gone altogether is told elsewhere.
    assert probe_told({}, {}) == []
    assert probe_told({"gone": HEALTHY}, {}) == []


def test_conditions_are_told_when_they_come_and_when_they_go() -> None:
    told = conditions(["OLD", "STAYS"], [Refusal("STAYS", "still"), Refusal("NEW", "just now")])
    assert [(each.kind, each.reason) for each in told] == [
        ("CONDITION_SET", "NEW"),
        ("CONDITION_CLEARED", "OLD"),
    ]


def test_a_condition_names_the_clause_behind_it() -> None:
    [known, foreign] = conditions([], [Refusal("NO_ROOM", "full"), Refusal("STORE_FULL", "full")])
    assert known.evidence == {"clause": "policy.max_unavailable"}
    assert foreign.evidence == {"clause": ""}


def told_of_edit(
    former_hash: str, *, former: int | None, count: int | None, removal: Removal | None = None
) -> list[Telling]:
    observation = seen(checked(count=5), memory=Memory(accepted_count=former), removal=removal)
    return list(edits(former_hash, observation, Plan(memory=Memory(accepted_count=count))))


def test_a_count_that_is_accepted_and_a_spec_that_changed_are_told_with_what_was_before() -> None:
    [telling] = told_of_edit("0123456789", former=3, count=5)
    assert telling.kind == "PRESET_EDITED"
    assert telling.message == "the count went from 3 to 5; the spec changed: 01234567 → spec-1"
    assert telling.evidence == {
        "count": "5",
        "spec_hash": "spec-1",
        "former_count": "3",
        "former_spec_hash": "0123456789",
    }
    [telling] = told_of_edit("spec-1", former=3, count=5)
    assert telling.message == "the count went from 3 to 5"
    assert telling.evidence["former_spec_hash"] == ""


def test_what_was_not_known_before_and_what_is_not_accepted_is_no_edit() -> None:
    assert not told_of_edit("", former=None, count=5)
    assert not told_of_edit("spec-1", former=3, count=3)


def test_a_removed_preset_is_not_edited() -> None:
    assert not told_of_edit("spec-0", former=3, count=5, removal=Removal(since=NOW))
