from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.decide import decide
from orchestrator.model import (
    Memory,
    Plan,
    Reason,
    Replace,
    TerminationWish,
    VmId,
    VmMemory,
    VmState,
    VmStatus,
    Wishes,
)
from tests.support.given import (
    CONDEMNED,
    NOW,
    SERVING,
    UNHEALTHY,
    checked,
    ended,
    memories,
    probes,
    seconds,
    seen,
    spec,
    vm,
    vm_id,
    vms,
)
from tests.support.world import World


def codes(plan: Plan) -> set[str]:
    return {each.code for each in plan.refusals}


def test_the_same_observation_gives_the_same_plan_in_whatever_order_it_lists() -> None:
    observation = seen(spec(3), vms("abcde"))
    assert decide(observation) == decide(replace(observation, vms=observation.vms[::-1]))


def test_an_unmanaged_preset_is_judged_and_left_alone() -> None:
    observation = seen(replace(spec(9), managed=False), vms("abc"))
    plan = decide(observation)
    assert not plan.steps
    assert codes(plan) == {"UNMANAGED"}
    assert len(plan.judged) == 3


def test_nothing_is_done_on_a_listing_that_is_not_whole_and_it_says_why() -> None:
    group = [*vms("ab"), vm("c", VmState.ERROR)]
    observation = seen(spec(5), group, complete=False, incomplete_reason="cell 2 is down")
    plan = decide(observation)
    assert not plan.steps
    assert not plan.is_settled
    assert any("cell 2 is down" in each.message for each in plan.refusals)
    assert decide(replace(observation, complete=True)).steps


def test_a_listing_that_is_not_whole_forgets_nobody() -> None:
    remembered = memories("abc")
    part = seen(spec(3), vms("a"), remembered=remembered, complete=False)
    whole = seen(spec(3), vms("a"), remembered=remembered)
    assert set(decide(part).memory.vms) == {"a", "b", "c"}
    assert set(decide(whole).memory.vms) == {"a"}


def test_a_whole_group_in_rest_is_settled_and_says_nothing() -> None:
    plan = decide(seen(checked(3), vms("abc")))
    assert plan.is_settled
    assert not plan.steps
    assert not plan.refusals


@pytest.mark.parametrize("state", [VmState.PENDING, VmState.DELETING])
def test_a_group_with_a_vm_on_its_way_is_not_settled(state: VmState) -> None:
    remembered = memories("abc") | memories("d", VmMemory(first_seen=NOW))
    plan = decide(seen(spec(3), [*vms("abc"), vm("d", state)], remembered=remembered))
    assert not plan.is_settled


def test_failures_below_a_verdict_move_nothing() -> None:
    failing = replace(SERVING, failures=1, failing_since=NOW - seconds(10), passes=0)
    plan = decide(
        seen(
            checked(3),
            vms("abc"),
            remembered=memories("a", failing) | memories("bc"),
            probes=probes(a=UNHEALTHY),
        )
    )
    assert not plan.steps
    assert plan.memory.vms[VmId("a")].failures == 2


def test_replacing_and_scaling_in_fall_together_without_counting_anybody_twice() -> None:
    """Three declared of four, one of them sick: it is the one too many."""
    plan = decide(
        seen(
            checked(3),
            vms("abcd"),
            remembered=memories("b", CONDEMNED) | memories("acd"),
            probes=probes(b=UNHEALTHY),
        )
    )
    assert [(step.vm.vm_id, step.reason) for step in plan.terminations] == [("b", Reason.UNHEALTHY)]
    assert not plan.creates


# --- the two and the one: below the floor of the breaker ---------------------------------------


def lives(world: World, cycles: int) -> list[Plan]:
    return list(world.cycles(cycles))


@pytest.mark.parametrize("count", [1, 2])
def test_when_all_of_a_small_group_hang_it_is_never_smaller_than_it_was(count: int) -> None:
    world = World(spec=checked(count))
    lives(world, 6)
    for body in world.bodies:
        body.is_hung = True
    for plan in world.cycles(60):
        assert len(world.alive()) >= count
        assert plan.judged
    assert len(world.serving()) == count


def test_a_whole_group_that_hangs_above_the_floor_is_kept_and_told() -> None:
    world = World(spec=checked(5))
    lives(world, 6)
    for body in world.bodies:
        body.is_hung = True
    last = lives(world, 100)[-1]
    assert len(world.bodies) == 5
    assert "BREAKER_OPEN" in codes(last)


def test_a_count_that_changes_while_vms_leave_ends_at_the_count() -> None:
    world = World(spec=checked(5))
    lives(world, 6)
    for count in (2, 4, 1, 6, 3):
        world.spec = replace(world.spec, count=count)
        lives(world, 2)
    plans = lives(world, 60)
    assert plans[-1].is_settled
    assert len(world.serving()) == len(world.bodies) == 3


def test_a_group_of_none_is_settled() -> None:
    world = World(spec=checked(0))
    assert lives(world, 3)[-1].is_settled
    assert not world.bodies


def test_short_lives_do_not_replace_each_other_from_birth_on() -> None:
    """Each VM lives for eight minutes, and the notice is ten: one birth a life, not a cycle."""
    world = World(spec=spec(2), life=seconds(480))
    lives(world, 96)
    assert world.number <= 2 + 2 * 96 * 10 / 240


def test_a_flapping_vm_condemns_no_other() -> None:
    world = World(spec=checked(3))
    lives(world, 6)
    flapping = world.bodies[0]
    for number in range(60):
        flapping.is_hung = number % 3 != 0
        lives(world, 1)
    flapping.is_hung = False
    lives(world, 30)
    assert {step.vm.vm_id for step in world.ended} <= {flapping.vm_id}
    assert len(world.serving()) == 3


def test_births_that_fail_beside_healthy_siblings_are_not_repeated_in_every_cycle() -> None:
    world = World(spec=spec(3))
    lives(world, 10)
    world.is_stillborn = True
    world.kill("vm-1")
    lives(world, 60)
    assert world.number <= 12
    world.is_stillborn = False
    lives(world, 70)
    assert len(world.serving()) == 3


def test_a_new_preset_without_memory_adopts_what_bears_its_mark() -> None:
    plan = decide(seen(spec(3), vms("abc"), remembered={}, memory=Memory()))
    assert not plan.steps
    assert {each.status for each in plan.judged} == {VmStatus.RUNNING}


def test_a_preset_that_is_to_move_stays_and_only_people_end_its_vms() -> None:
    wish = TerminationWish(vm_id=vm_id("a"), actor="ann")
    moved = seen(
        spec(5, replace=Replace.ROLLING),
        (vm("a"), vm("b", VmState.ERROR), vm("c", spec_hash="former")),
        moves_to="new",
        wishes=Wishes(terminations=(wish,)),
    )
    plan = decide(moved)
    assert ended(plan) == {"a": Reason.OPERATOR}
    assert not plan.creates
    assert codes(plan) == {"PROVIDER_CHANGED"}
    assert decide(replace(moved, moves_to="")).creates
