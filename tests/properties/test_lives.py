"""What holds for every life of a group, be the world as it may."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model import Check, Method, Policy, PresetName, Replace, Spec, VmId, VmState
from tests.properties.happenings import ENDS, EVENTS, FATES, scale
from tests.properties.states import mostly
from tests.support.body import Body
from tests.support.given import SPEC, seconds
from tests.support.world import World

# Hundreds of examples, on a machine that may have little time for them.
pytestmark = pytest.mark.timeout(600)

RESUMABLE = {"ROLLOUT_STOPPED", "REPAIR_SUSPENDED"}
PATIENCE = timedelta(hours=4)
LIVES = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])


def _of(names: list[str]) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    event = st.tuples(st.sampled_from(names), st.integers(0, 8), st.integers(1, 12))
    return st.lists(event, max_size=20)


# A few kinds of events a life, again and again: what goes wrong together is found sooner.
events = st.lists(st.sampled_from(sorted(EVENTS)), min_size=1, max_size=6, unique=True).flatmap(_of)
minutes = st.sampled_from([1, 5, 20]).map(lambda number: timedelta(minutes=number))
policies = st.builds(
    Policy,
    max_surge=st.integers(0, 3),
    max_unavailable=st.integers(0, 2),
    startup_grace=st.sampled_from([seconds(120), seconds(0), seconds(30)]),
    max_deletions_per_cycle=st.none() | st.integers(1, 3),
    max_deletions_per_window=mostly(None, st.integers(1, 4)),
    deletion_window=minutes,
    max_lifetime=mostly(None, minutes),
    breaker_count=st.integers(1, 4),
    breaker_percent=st.sampled_from([34, 10, 100]),
    breaker_window=minutes,
    longest_backoff=minutes,
    suspend_after=st.integers(0, 5),
    reboots=mostly(0, st.integers(1, 2)),
    rebuilds=mostly(0, st.integers(1, 2)),
    keep_failed=mostly(0, st.integers(1, 2)),
    keep_failed_time=minutes,
    replace=st.sampled_from(Replace),
    canary=st.integers(0, 3),
    min_healthy_time=st.sampled_from([seconds(30), seconds(0), seconds(120)]),
    batch_pause=st.sampled_from([seconds(0), seconds(60)]),
    removal_grace=minutes,
    oldest_leaves_first=st.booleans(),
    stopped_are_replaced=st.booleans(),
    deleted_on_removal=st.booleans(),
).filter(lambda policy: policy.max_surge or policy.max_unavailable)
worlds = st.builds(
    World,
    spec=st.builds(
        Spec,
        name=st.just(PresetName("web")),
        count=st.integers(0, 8),
        spec_hash=st.just(SPEC),
        images=mostly((), st.just(("new", "old"))),
        flavors=mostly((), st.just(("big", "small"))),
        zones=mostly((), st.just(("a", "b", "c"))),
        check=st.none() | st.just(Check()) | st.just(Check()),
        policy=policies,
    ),
    idempotent=st.booleans(),
    methods=st.sampled_from([frozenset(Method), frozenset()]),
    step=st.sampled_from([seconds(5), seconds(10), seconds(45)]),
    lag=st.sampled_from([seconds(0), seconds(40)]),
    create_faults=st.lists(st.sampled_from(["", *FATES]), max_size=4),
    terminate_faults=st.lists(st.sampled_from(["", *ENDS]), max_size=4),
)


def live(world: World, happenings: list[tuple[str, int, int]]) -> None:
    for _ in world.cycles(10):
        pass
    for name, which, cycles in happenings:
        EVENTS[name](world, which)
        for _ in world.cycles(cycles):
            pass


def end_what_no_group_can_mend(world: World) -> None:
    """Faults that need a person by design: too many at once, and no check; lives without end."""
    policy = world.spec.policy
    hung = sum(1 for body in world.bodies if body.is_hung)
    if world.spec.check is None or hung >= policy.breaker_count:
        for body in world.bodies:
            body.is_hung = False
    for body in list(world.bodies):
        if body.has_run_out(world.now):
            world.vanish(body.vm_id)
    world.spec = replace(world.spec, policy=replace(policy, max_lifetime=None))


def converge(world: World) -> None:
    """All that is declared is there, nothing else, and it stays so. A person resumes what VMs of
    former days stopped; none that was born since does.
    """
    calm, until, flawed = 0, world.now + PATIENCE, len(world.bodies)
    while calm <= 20 and world.now < until:
        plan = world.cycle()
        calm = calm + 1 if plan.is_settled and not plan.steps else 0
        if calm and any(each.code in RESUMABLE for each in plan.refusals):
            assert flawed, "stopped by itself without a fault"
            flawed -= 1
            EVENTS["resume"](world, 0)
        if world.now > until - PATIENCE + timedelta(minutes=20):
            world.step = seconds(45)
    assert calm > 20, "never came to rest"
    # What was sent away and ended may linger in the cloud's lists for a while.
    left = [b for b in world.bodies if not (b.asked_at and b.state is VmState.TERMINATED)]
    assert len(left) == world.spec.count + len(world.kept())
    assert len(world.serving()) == world.spec.count
    assert not world.memory.intents
    if world.spec.policy.replace is Replace.ROLLING:
        assert {body.spec_hash for body in world.serving()} <= {world.spec.spec_hash}
        assert not any(_is_resized(world, body) for body in world.serving())


def _is_resized(world: World, body: Body) -> bool:
    """Whether it is not what it was when it was first seen."""
    return body.placement.flavor == "huge" != world.memory.vms[body.vm_id].first_flavor


@given(worlds, events)
@settings(LIVES, max_examples=200)
def test_whatever_happens_the_limits_hold_and_the_group_is_whole_when_faults_cease(
    world: World, happenings: list[tuple[str, int, int]]
) -> None:
    live(world, happenings)
    world.heal()
    end_what_no_group_can_mend(world)
    converge(world)


@given(
    world=worlds,
    count=st.integers(0, 8),
    ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=4),
    with_wish=st.booleans(),
)
@LIVES
def test_lost_answers_to_terminations_cost_no_vm_more_than_are_too_many(
    world: World, count: int, ends: list[str], *, with_wish: bool
) -> None:
    world.create_faults, world.terminate_faults = [], []
    for _ in world.cycles(20):
        pass
    world.lag, world.terminate_faults = seconds(40), ends
    scale(world, count)
    if with_wish:
        EVENTS["wish"](world, count)
    for _ in world.cycles(20):
        pass
    world.heal()
    end_what_no_group_can_mend(world)
    converge(world)


@given(
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 80),
    st.sets(st.integers(1, 9)),
    st.sampled_from([seconds(5), seconds(10), seconds(45)]),
    st.lists(st.integers(1, 9), max_size=2),
)
@LIVES
def test_a_blind_prober_destroys_nothing_that_was_healthy(
    count: int,
    surge: int,
    cycles: int,
    earlier: set[int],
    step: timedelta,
    later: list[int],
) -> None:
    what = Spec(
        name=PresetName("web"),
        count=count,
        spec_hash=SPEC,
        check=Check(),
        policy=Policy(max_surge=surge),
    )
    world = World(spec=what, step=step)
    for _ in world.cycles(10):
        pass
    healthy = {body.vm_id for body in world.serving()}
    assert len(healthy) == count
    # It does not fail for everybody at the same moment, nor does it come back so.
    world.blind_only = frozenset(VmId(f"vm-{number}") for number in earlier)
    world.cycle()
    world.is_blind = True
    for _ in world.cycles(cycles):
        pass
    # Below the floor of the breaker a VM that goes on failing alone is a failing VM.
    may_linger = later if count >= what.policy.breaker_count else []
    world.is_blind, world.blind_only = False, frozenset(VmId(f"vm-{each}") for each in may_linger)
    world.cycle()
    world.blind_only = frozenset()
    converge(world)
    assert healthy == {body.vm_id for body in world.serving()}
