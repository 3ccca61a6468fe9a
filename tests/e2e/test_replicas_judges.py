"""The judges of bench/replicas.py find what is planted, and nothing where nothing is wrong."""

from __future__ import annotations

import pytest

from bench.replicas_fleet import Hit, Kind, Life
from bench.replicas_judge import of_journal
from bench.replicas_takeover import LOOK_SECONDS, MOVE_SECONDS, TERM_SECONDS, Lock, Takeovers
from bench.replicas_watch import token_regressions
from vmshepherd.iaas.v1.vm_pb2 import Marker, Vm
from vmshepherd.runtime.v1.event_pb2 import Event

TTL_AND_DELAY = 30.0


class Story:
    """One preset, and who has it as time goes by."""

    def __init__(self) -> None:
        self.takeovers = Takeovers(["web"], ttl_and_delay=TTL_AND_DELAY)
        self.token = 0

    def held(self, now: float, life: Life | None, *, home: Life | None = None) -> None:
        """The store says so; each new holder has a new token."""
        self.token += 1
        self.takeovers.look(now, {"web": Lock(life, self.token)}, lambda _: home)

    def late(self) -> list[bool]:
        """Of each gap, whether it was too long."""
        return [each.is_late for each in self.takeovers.over]


def hurt(life: Life, kind: Kind, at: float) -> None:
    life.hits.append(Hit(kind, at))
    life.is_paused = kind is Kind.STOP
    life.is_over = not life.is_paused


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        (Kind.KILL, TTL_AND_DELAY + LOOK_SECONDS),
        (Kind.STOP, TTL_AND_DELAY + LOOK_SECONDS),
        (Kind.TERM, TERM_SECONDS),
    ],
)
@pytest.mark.parametrize("beyond", [-0.1, 0.1])
def test_a_takeover_is_late_when_it_takes_longer_than_its_cause_allows(
    kind: Kind, allowed: float, beyond: float
) -> None:
    story, first, second = Story(), Life("first", 1), Life("second", 2)
    story.held(10.0, first)
    hurt(first, kind, 11.0)
    story.held(11.1, first, home=second)
    story.held(11.0 + allowed + beyond, second)
    assert story.late() == [beyond > 0]
    [over] = story.takeovers.over
    assert over.is_single
    assert over.to_another
    assert over.seconds == pytest.approx(allowed + beyond)


def test_an_heir_that_dies_meanwhile_is_a_cause_of_its_own() -> None:
    story, first, heir, last = Story(), Life("first", 1), Life("heir", 2), Life("last", 3)
    story.held(10.0, first)
    hurt(first, Kind.TERM, 11.0)
    hurt(heir, Kind.KILL, 12.0)
    story.held(12.1, None, home=heir)
    story.held(12.0 + TTL_AND_DELAY, last)
    assert story.late() == [False]
    assert not story.takeovers.over[0].is_single


def test_a_move_that_no_fault_explains_has_a_limit_too() -> None:
    story, first, second = Story(), Life("first", 1), Life("second", 2)
    story.held(10.0, first)
    story.held(11.0, None, home=second)
    assert story.takeovers.still_late(11.0 + MOVE_SECONDS - 0.1) == []
    assert story.takeovers.still_late(11.0 + MOVE_SECONDS + 0.1)
    story.held(11.0 + MOVE_SECONDS + 0.1, second)
    assert story.late() == [True]


def test_one_that_stood_still_and_goes_on_has_taken_nothing_over() -> None:
    story, first = Story(), Life("first", 1)
    story.held(10.0, first)
    hurt(first, Kind.STOP, 11.0)
    story.held(11.1, first, home=first)
    first.is_paused = False
    story.held(15.0, first)
    assert [each.to_another for each in story.takeovers.over] == [False]


def test_one_that_goes_on_and_finds_its_session_ended_still_has_its_pause_for_a_cause() -> None:
    story, first, second = Story(), Life("first", 1), Life("second", 2)
    story.held(10.0, first)
    hurt(first, Kind.STOP, 11.0)
    first.is_paused = False
    story.held(30.9, first)
    story.held(31.0, None, home=first)
    story.held(41.0, second)
    assert story.late() == [False]


def test_a_token_that_goes_back_is_found() -> None:
    story, first = Story(), Life("first", 1)
    story.held(10.0, first)
    story.held(11.0, first)
    assert story.takeovers.wrong == []
    story.token = 0
    story.held(12.0, first)
    assert len(story.takeovers.wrong) == 1


def made(vm_id: str, at: int, token: int) -> Vm:
    vm = Vm(vm_id=vm_id, marker=Marker(preset="web", fencing_token=token))
    vm.create_time.FromSeconds(at)
    return vm


def test_a_vm_made_under_an_older_token_than_one_before_it_is_found() -> None:
    assert token_regressions([made("a", 1, 4), made("b", 2, 5), made("c", 3, 5)]) == []
    assert len(token_regressions([made("a", 1, 5), made("b", 2, 4)])) == 1


def told(kind: str, token: int, actor: str, **more: str) -> Event:
    return Event(preset="web", kind=kind, fencing_token=token, actor=actor, **more)  # type: ignore[arg-type]


def test_a_journal_of_one_holder_after_the_other_is_in_order() -> None:
    events = [
        told("VM_CREATING", 4, "first"),
        told("VM_TERMINATING", 5, "second", vm_id="a", reason="OPERATOR"),
        # What was done is told late by whoever stood still.
        told("VM_CREATED", 4, "first"),
    ]
    assert of_journal(events, wanted={"a"}) == []


@pytest.mark.parametrize(
    "wrong",
    [
        told("VM_CREATING", 4, "first"),
        told("VM_CREATING", 5, "first"),
        told("VM_TERMINATING", 5, "second", vm_id="b", reason="OPERATOR"),
        told("VM_TERMINATING", 5, "second", vm_id="a", reason="SURPLUS"),
    ],
    ids=["older token", "token of two", "nobody wanted it gone", "gone for another reason"],
)
def test_what_should_not_have_been_done_is_found_in_the_journal(wrong: Event) -> None:
    events = [told("VM_CREATING", 4, "first"), told("VM_CREATING", 5, "second"), wrong]
    assert of_journal(events, wanted={"a"})
