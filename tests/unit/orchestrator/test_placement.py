from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import placement
from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Create,
    Fate,
    Intent,
    IntentPhase,
    Memory,
    Observation,
    Outcome,
    Placement,
    Plan,
    RequestId,
    Shortage,
    Spec,
)
from orchestrator.recall import recall, restarted
from tests.support.given import (
    NOW,
    SPEC,
    codes,
    said,
    seconds,
    seen,
    spec,
    vm,
)

ZONES = ("a", "b", "c")


def choosing(count: int = 3, **more: Any) -> Spec:
    choices = {name: more.pop(name) for name in ("images", "flavors", "zones") if name in more}
    return replace(spec(count, **more), **choices)


def short(seconds_left: float = 10, failures: int = 1, **where: str) -> Shortage:
    return Shortage(
        placement=Placement(**where),
        until=NOW + seconds(seconds_left),
        reason="NO_CAPACITY",
        message="sold out",
        failures=failures,
    )


def group(zones: str) -> list[Any]:
    return [vm(f"v{number}", zone=zone) for number, zone in enumerate(zones)]


def planning(what: Spec, *shortages: Shortage, zones: str = "", **more: Any) -> Observation:
    memory = Memory(accepted_count=what.count, shortages=shortages)
    return seen(what, group(zones), memory=memory, **more)


def places(plan: Plan) -> list[Placement]:
    return [step.intent.placement for step in plan.creates]


def zones_of(plan: Plan) -> dict[str, int]:
    return dict(Counter(each.zone for each in places(plan)))


def test_where_the_preset_leaves_no_choice_the_declared_is_meant() -> None:
    assert places(decide(planning(choosing(2)))) == [Placement()] * 2


def test_the_preferred_image_and_flavor_are_taken() -> None:
    what = choosing(1, images=("new", "old"), flavors=("small", "big"))
    assert places(decide(planning(what))) == [Placement(image="new", flavor="small")]


@pytest.mark.parametrize(
    ("there", "count", "expected"),
    [
        ("", 3, {"a": 1, "b": 1, "c": 1}),
        ("", 2, {"a": 1, "b": 1}),
        ("aab", 5, {"b": 1, "c": 1}),
        ("aabbcc", 7, {"a": 1}),
        ("zzzz", 5, {"a": 1}),
        ("", 7, {"a": 3, "b": 2, "c": 2}),
    ],
)
def test_new_vms_go_where_the_fewest_are_in_the_listed_order(
    there: str, count: int, expected: dict[str, int]
) -> None:
    assert zones_of(decide(planning(choosing(count, zones=ZONES), zones=there))) == expected


def test_vms_on_their_way_count_in_their_zone() -> None:
    coming = Intent(
        request_id=RequestId("r"),
        name="n",
        spec_hash=SPEC,
        phase=IntentPhase.CONFIRMED,
        placement=Placement(zone="a"),
    )
    sent = replace(coming, phase=IntentPhase.SENT, sent_at=NOW, attempts=1)
    memory = Memory(accepted_count=3, intents=(sent,))
    plan = decide(seen(choosing(3, zones=ZONES), memory=memory))
    fresh = [step for step in plan.creates if step.reason != "REPEAT"]
    assert {step.intent.placement.zone for step in fresh} == {"b", "c"}


def test_a_repeat_is_made_where_it_was_first_asked_for() -> None:
    """Its request id stands for one VM, wherever that may be by now."""
    first = Intent(
        request_id=RequestId("r"),
        name="n",
        spec_hash=SPEC,
        phase=IntentPhase.SENT,
        sent_at=NOW,
        attempts=1,
        placement=Placement(zone="gone"),
    )
    memory = Memory(accepted_count=1, intents=(first,))
    (step,) = decide(seen(choosing(1, zones=ZONES), memory=memory)).creates
    assert (step.reason, step.intent.placement) == ("REPEAT", Placement(zone="gone"))


def test_nothing_is_destroyed_for_the_sake_of_balance() -> None:
    assert not decide(planning(choosing(3, zones=ZONES), zones="aaa")).steps
    assert not decide(planning(choosing(3, zones=("b",)), zones="aaa")).steps


# --- what is left out --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shortage", "expected"),
    [
        (short(flavor="small", zone="a"), ("small", "b")),
        (short(flavor="small"), ("big", "a")),
        (short(flavor="small", zone="c"), ("small", "a")),
        (short(seconds_left=0, flavor="small"), ("small", "a")),
    ],
)
def test_what_is_short_is_left_out_for_its_while(
    shortage: Shortage, expected: tuple[str, str]
) -> None:
    what = choosing(1, flavors=("small", "big"), zones=ZONES)
    (place,) = places(decide(planning(what, shortage)))
    assert (place.flavor, place.zone) == expected


def test_a_bad_image_is_left_out_and_the_next_is_taken() -> None:
    what = choosing(1, images=("new", "old"), zones=ZONES)
    (place,) = places(decide(planning(what, short(image="new"))))
    assert place == Placement(image="old", zone="a")


def test_the_preferred_flavor_elsewhere_comes_before_the_next_flavor() -> None:
    what = choosing(1, flavors=("small", "big"), zones=ZONES)
    found = planning(what, *(short(flavor="small", zone=zone) for zone in "ab"))
    assert places(decide(found)) == [Placement(flavor="small", zone="c")]


def test_when_nothing_is_left_it_says_what_is_short_and_for_how_long() -> None:
    what = choosing(2, zones=("a", "b"))
    plan = decide(planning(what, short(10, zone="a"), short(20, zone="b")))
    assert not plan.creates
    message = said(plan, "NO_PLACEMENT")
    assert "in 10 s it is tried again" in message
    assert "the cloud has no room: sold out" in message
    assert not plan.is_settled


# --- what is learnt from refusals --------------------------------------------------------------


def refused(reason: str, place: Placement, **more: Any) -> Outcome:
    intent = Intent(request_id=RequestId("r"), name="n", spec_hash=SPEC, placement=place)
    step = Create(intent, "MISSING", "0 of 1 VMs are there")
    return Outcome(step=step, fate=Fate.FAILED, reason=reason, message="said so", **more)


HERE = Placement(image="i", flavor="f", zone="z")
CHOICE = choosing(1, images=("i", "j"), flavors=("f", "g"), zones=("z", "y"))


@pytest.mark.parametrize(
    ("reason", "about"),
    [
        ("NO_CAPACITY", Placement(flavor="f", zone="z")),
        ("QUOTA_EXCEEDED", Placement(flavor="f")),
        ("BAD_REQUEST", Placement(image="i", flavor="f")),
        ("NOT_FOUND", Placement(image="i", flavor="f")),
    ],
)
def test_a_refusal_is_about_as_much_as_its_class_says(reason: str, about: Placement) -> None:
    (found,) = placement.after((), [refused(reason, HERE)], CHOICE, NOW)
    assert found.placement == about


@pytest.mark.parametrize(
    "reason", ["THROTTLED", "UNAVAILABLE", "DENIED", "UNAUTHENTICATED", "NEVER_HEARD_OF"]
)
def test_what_another_placement_would_not_help_against_leaves_nothing_out(reason: str) -> None:
    assert not placement.after((), [refused(reason, HERE)], CHOICE, NOW)


def test_without_a_choice_nothing_is_left_out() -> None:
    assert not placement.after((), [refused("NO_CAPACITY", Placement())], spec(), NOW)


def wait_of(shortages: Sequence[Shortage]) -> float:
    return (shortages[0].until - NOW).total_seconds()


def test_each_refusal_in_a_row_doubles_the_while_up_to_the_longest_patience() -> None:
    waits = list[float]()
    shortages: tuple[Shortage, ...] = ()
    for _ in range(8):
        shortages = tuple(replace(each, until=NOW) for each in shortages)
        shortages = placement.after(shortages, [refused("NO_CAPACITY", HERE)], CHOICE, NOW)
        waits.append(wait_of(shortages))
    assert waits == [15, 30, 60, 120, 240, 480, 600, 600]


def test_the_cloud_may_ask_for_more() -> None:
    outcome = refused("NO_CAPACITY", HERE, retry_after=seconds(40))
    assert wait_of(placement.after((), [outcome], CHOICE, NOW)) == 40


def test_a_second_refusal_of_the_same_batch_tells_nothing_new() -> None:
    both = [refused("NO_CAPACITY", HERE), refused("NO_CAPACITY", HERE)]
    (found,) = placement.after((), both, CHOICE, NOW)
    assert found.failures == 1


def test_a_success_disproves_what_was_short_there_and_nothing_else() -> None:
    known = (short(flavor="f"), short(flavor="f", zone="z"), short(flavor="g", zone="z"))
    done = replace(refused("", HERE), fate=Fate.DONE)
    assert placement.after(known, [done], CHOICE, NOW) == known[2:]


def test_a_lost_answer_says_nothing() -> None:
    lost = replace(refused("OUTCOME_UNKNOWN", HERE), fate=Fate.UNKNOWN)
    assert not placement.after((), [lost], CHOICE, NOW)


# --- patience ----------------------------------------------------------------------------------


def after_refusal(reason: str, what: Spec, *known: Shortage) -> Memory:
    plan = decide(planning(what, *known))
    step = plan.creates[0]
    outcome = Outcome(step=step, fate=Fate.FAILED, reason=reason, message="said so")
    return recall(plan, [outcome], spec=what, now=NOW)


def test_while_something_else_can_be_tried_nobody_waits() -> None:
    memory = after_refusal("NO_CAPACITY", choosing(3, zones=ZONES))
    assert memory.backoff == Backoff()
    next_plan = decide(seen(choosing(3, zones=ZONES), memory=memory))
    assert zones_of(next_plan) == {"b": 2, "c": 1}


def test_once_nothing_is_left_the_preset_waits_and_then_one_is_tried_alone() -> None:
    what = choosing(3, zones=("a", "b"))
    memory = after_refusal("NO_CAPACITY", what, short(zone="a"))
    waiting = decide(seen(what, memory=memory))
    assert "BACKOFF" in codes(waiting)
    later = decide(seen(what, memory=memory, now=NOW + seconds(15)))
    assert len(later.creates) == 1
    assert "SLOW_START" in codes(later)


@pytest.mark.parametrize("reason", ["THROTTLED", "DENIED", "UNAVAILABLE"])
def test_what_no_placement_helps_against_costs_patience_in_spite_of_the_choice(reason: str) -> None:
    memory = after_refusal(reason, choosing(3, zones=ZONES))
    assert memory.backoff.failures == 1
    assert not memory.shortages


def test_a_new_holder_tries_everything_again() -> None:
    assert not restarted(Memory(shortages=(short(zone="a"),)), NOW).shortages


def test_a_changed_spec_is_tried_at_once_wherever_the_former_was_refused() -> None:
    what = choosing(1, images=("i", "j"))
    memory = Memory(
        accepted_count=1,
        shortages=(short(image="i"), short(image="j")),
        backoff=Backoff(
            failures=2, until=NOW + seconds(9), reason="BAD_REQUEST", spec_hash="spec-0"
        ),
    )
    plan = decide(seen(what, memory=memory))
    assert places(plan) == [Placement(image="i")]
    assert not plan.memory.shortages
    same = replace(memory, backoff=replace(memory.backoff, spec_hash=SPEC, until=NOW))
    assert "NO_PLACEMENT" in codes(decide(seen(what, memory=same)))


def test_what_the_preset_names_no_more_is_forgotten_and_the_rest_goes_on_doubling() -> None:
    what = choosing(0, flavors=("y", "z"), zones=("a",))
    foreign = (short(flavor="x"), short(flavor="y", zone="b"))
    own = (short(-5, flavor="y", failures=3), short(flavor="z", zone="a"))
    memory = Memory(accepted_count=0, shortages=(*foreign, *own))
    assert decide(seen(what, memory=memory)).memory.shortages == own
