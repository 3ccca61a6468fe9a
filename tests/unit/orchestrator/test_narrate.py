from __future__ import annotations

from orchestrator.model import Create, Fate, Intent, Outcome, Reason, Refusal, RequestId, Terminate
from orchestrator.narrate import Weight, announce, conditions, report
from tests.support.given import vm

INTENT = Intent(request_id=RequestId("r"), name="web-1", spec_hash="spec-1", attempts=1)
CREATE = Create(INTENT, "MISSING", "2 of 3 VMs are there")
TERMINATE = Terminate(
    vm=vm("a", cloud_state="ACTIVE"), reason=Reason.UNHEALTHY, evidence="it fails"
)


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
    assert terminate.evidence == {"evidence": "it fails", "cloud_state": "ACTIVE"}


def test_what_became_of_a_step_is_told_unless_it_was_not_tried() -> None:
    kinds = {
        (type(step).__name__, fate): telling and (telling.kind, telling.weight)
        for step in (CREATE, TERMINATE)
        for fate in Fate
        for telling in [report(Outcome(step=step, fate=fate, message="the cloud said"))]
    }
    assert kinds == {
        ("Create", Fate.DONE): ("VM_CREATED", Weight.INFO),
        ("Create", Fate.FAILED): ("CREATE_FAILED", Weight.WARNING),
        ("Create", Fate.UNKNOWN): ("CREATE_UNKNOWN", Weight.WARNING),
        ("Create", Fate.UNTRIED): None,
        ("Terminate", Fate.DONE): ("VM_TERMINATED", Weight.INFO),
        ("Terminate", Fate.FAILED): ("TERMINATE_FAILED", Weight.WARNING),
        ("Terminate", Fate.UNKNOWN): ("TERMINATE_FAILED", Weight.WARNING),
        ("Terminate", Fate.UNTRIED): None,
    }


def test_conditions_are_told_when_they_come_and_when_they_go() -> None:
    told = conditions(["OLD", "STAYS"], [Refusal("STAYS", "still"), Refusal("NEW", "just now")])
    assert [(each.kind, each.reason) for each in told] == [
        ("CONDITION_SET", "NEW"),
        ("CONDITION_CLEARED", "OLD"),
    ]
