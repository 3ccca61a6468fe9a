from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator import intents
from orchestrator.decide import decide
from orchestrator.model import (
    Cloud,
    Intent,
    IntentPhase,
    Memory,
    Observation,
    Placement,
    RequestId,
)
from tests.support.given import NOW, SPEC, seconds, seen, spec, vm, vm_id, vms

SLOW_CLOUD = Cloud(idempotent=False, horizon=seconds(120))


def intent(name: str, phase: IntentPhase = IntentPhase.SENT, *, ago: float = 10) -> Intent:
    return Intent(
        request_id=RequestId(f"request-of-{name}"),
        name=name,
        spec_hash=SPEC,
        phase=phase,
        sent_at=None if phase is IntentPhase.PLANNED else NOW - seconds(ago),
        attempts=0 if phase is IntentPhase.PLANNED else 1,
        vm_id=vm_id(name) if phase is IntentPhase.CONFIRMED else None,
    )


def open_in(observation: Observation) -> list[str]:
    return [each.name for each in intents.still_open(observation)]


def holding(*held: Intent, count: int = 3, present: str = "ab", **more: Any) -> Observation:
    memory = Memory(intents=held, accepted_count=count, next_slot=40)
    return seen(spec(count), vms(present), memory=memory, **more)


def test_an_intent_is_closed_when_its_vm_is_seen() -> None:
    assert open_in(holding(intent("b"), intent("c"))) == ["c"]


def test_a_confirmed_vm_that_is_gone_closes_its_intent_and_the_next_has_a_new_id() -> None:
    observation = holding(intent("c", IntentPhase.CONFIRMED))
    assert open_in(observation) == []
    (create,) = decide(observation).creates
    assert create.intent.request_id != "request-of-c"


def test_a_listing_that_is_not_whole_closes_nothing() -> None:
    observation = holding(intent("a"), intent("c", IntentPhase.CONFIRMED), complete=False)
    assert open_in(observation) == ["a", "c"]
    assert decide(observation).memory.intents == observation.memory.intents


def test_an_intent_that_may_be_on_its_way_counts_as_capacity() -> None:
    plan = decide(holding(intent("c"), cloud=SLOW_CLOUD))
    assert not plan.creates
    assert "AWAITING_VMS" in {each.code for each in plan.refusals}


def test_without_intents_as_capacity_a_lost_answer_would_make_a_second_vm() -> None:
    forgotten = decide(holding(cloud=SLOW_CLOUD))
    assert len(forgotten.creates) == 1
    assert not decide(holding(intent("c"), cloud=SLOW_CLOUD)).creates


def test_a_cloud_that_knows_request_ids_is_asked_again_at_once_under_the_same_id() -> None:
    (create,) = decide(holding(intent("c", ago=1))).creates
    assert create.intent.request_id == "request-of-c"


def test_a_cloud_that_does_not_is_asked_again_after_the_horizon_alone() -> None:
    assert not decide(holding(intent("c", ago=119), cloud=SLOW_CLOUD)).creates
    (create,) = decide(holding(intent("c", ago=120), cloud=SLOW_CLOUD)).creates
    assert create.intent.request_id == "request-of-c"


def test_a_planned_intent_is_sent_at_once() -> None:
    (create,) = decide(holding(intent("c", IntentPhase.PLANNED), cloud=SLOW_CLOUD)).creates
    assert create.intent.request_id == "request-of-c"


def test_ids_follow_from_what_is_unique_and_never_repeat() -> None:
    observation = holding()
    places = [Placement()] * 50
    fresh = intents.new_intents(places, observation)
    assert intents.new_intents(places, observation) == fresh
    later = replace(observation, memory=replace(observation.memory, next_slot=90))
    other_token = replace(observation, fencing_token=8)
    other_suite = replace(observation, suite_id="another")
    ids = {each.request_id for each in fresh}
    assert len(ids) == 50
    for elsewhere in (later, other_token, other_suite):
        assert ids.isdisjoint(each.request_id for each in intents.new_intents(places, elsewhere))


def test_a_plan_moves_on_to_the_next_slot() -> None:
    plan = decide(holding(count=5))
    assert len(plan.creates) == 3
    assert plan.memory.next_slot == 43


def test_an_intent_that_is_not_needed_any_more_and_was_never_sent_is_dropped() -> None:
    plan = decide(holding(intent("c", IntentPhase.PLANNED), count=2))
    assert not plan.steps
    assert not plan.memory.intents


def test_an_intent_that_is_not_needed_any_more_is_never_sent_again() -> None:
    plan = decide(holding(intent("c"), count=2))
    assert not plan.creates
    assert [each.name for each in plan.memory.intents] == ["c"]


def test_it_is_dropped_once_a_whole_listing_disproves_it() -> None:
    plan = decide(holding(intent("c", ago=120), count=2))
    assert not plan.memory.intents
    assert plan.is_settled


def test_of_several_in_doubt_none_is_sent_again_until_all_are_needed() -> None:
    """One of them may be there already: sending another could make one VM too many."""
    assert not decide(holding(intent("c"), intent("d"), count=3)).creates
    assert len(decide(holding(intent("c"), intent("d"), count=4)).creates) == 2


def test_twins_of_one_request_are_two_vms_and_one_of_them_leaves() -> None:
    twins = [vm("a"), vm("b", request_id=RequestId("request-of-a"))]
    plan = decide(seen(spec(1), twins))
    assert [step.vm.vm_id for step in plan.terminations] == ["a"]


def test_an_id_that_a_vm_bears_is_given_to_no_other_though_the_store_forgot_it() -> None:
    first = decide(holding(count=4, present="ab"))
    lost = first.creates[0].intent
    there = (*vms("ab"), vm("c", request_id=lost.request_id))
    # The store lost its last writes: neither the intent nor its slot is known any more.
    again = decide(seen(spec(4), there, memory=Memory(accepted_count=4, next_slot=40)))
    assert [each.intent.request_id for each in again.creates] == [
        first.creates[1].intent.request_id
    ]
    assert again.memory.next_slot == 42


@pytest.mark.parametrize("cloud", [Cloud(), SLOW_CLOUD])
def test_what_was_asked_for_under_another_spec_is_not_sent_again_as_this_one(cloud: Cloud) -> None:
    former = replace(intent("c"), spec_hash="former", sent_at=NOW - seconds(119))
    waiting = decide(holding(former, cloud=cloud))
    assert not waiting.creates
    assert waiting.memory.intents == (former,)
    # Nothing came of it: one of this spec takes its place, under an id of its own.
    late = decide(holding(replace(former, sent_at=NOW - seconds(120)), cloud=cloud))
    assert [each.intent.spec_hash for each in late.creates] == [SPEC]
    assert [each.request_id for each in late.memory.intents] == [late.creates[0].intent.request_id]
    assert late.creates[0].intent.request_id != former.request_id


def test_what_was_only_planned_for_another_spec_is_dropped_at_once() -> None:
    planned = replace(intent("c", IntentPhase.PLANNED), spec_hash="former")
    assert [each.intent.spec_hash for each in decide(holding(planned)).creates] == [SPEC]
