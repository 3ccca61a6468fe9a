"""What holds for every observation and every life, be the world as it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Check,
    Cloud,
    Fleet,
    Intent,
    IntentPhase,
    Memory,
    Observation,
    Pause,
    Policy,
    PresetName,
    Probe,
    Process,
    RequestId,
    Spec,
    TerminationWish,
    Verdict,
    Vm,
    VmId,
    VmMemory,
    VmState,
    Wishes,
)
from tests.support.given import NOW, SPEC, seconds
from tests.support.safety import check_plan
from tests.support.world import World

LIVES = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])

durations = st.integers(0, 1000).map(seconds)
moments = durations.map(lambda ago: NOW - ago)
# A clock may have been set back since.
any_moments = st.integers(-1000, 1000).map(lambda ago: NOW - seconds(ago))
hashes = st.sampled_from([SPEC, "spec-0"])
ids = st.integers(0, 9).map(lambda number: VmId(f"vm-{number}"))

policies = st.builds(
    Policy,
    max_surge=st.integers(0, 3),
    max_unavailable=st.integers(0, 3),
    max_deletions_per_cycle=st.none() | st.integers(0, 3),
    oldest_leaves_first=st.booleans(),
)
checks = st.builds(
    Check, fall=st.integers(1, 3), rise=st.integers(1, 3), observe_only=st.booleans()
)
specs = st.builds(
    Spec,
    name=st.just(PresetName("web")),
    count=st.integers(0, 8),
    spec_hash=st.just(SPEC),
    managed=st.sampled_from([True, True, True, False]),
    check=st.none() | checks,
    policy=policies,
)
present = st.builds(
    Vm,
    vm_id=ids,
    state=st.sampled_from(VmState),
    created=st.none() | moments,
    shutdown_at=st.none() | any_moments,
    protected=st.booleans(),
    request_id=st.integers(0, 12).map(lambda number: RequestId(f"r-{number}")),
    spec_hash=hashes,
)
remembered = st.builds(
    VmMemory,
    first_seen=any_moments,
    first_running=st.none() | any_moments,
    failures=st.integers(0, 3),
    failing_since=st.none() | any_moments,
    passes=st.integers(0, 3),
    was_healthy=st.booleans(),
    is_unhealthy=st.booleans(),
    terminating_since=st.none() | any_moments,
    terminate_failed_at=st.none() | any_moments,
    boot_failure_counted=st.booleans(),
)
intents = st.builds(
    Intent,
    request_id=st.integers(0, 12).map(lambda number: RequestId(f"r-{number}")),
    name=st.just("web-1"),
    spec_hash=hashes,
    phase=st.sampled_from(IntentPhase),
    sent_at=st.none() | any_moments,
    attempts=st.integers(0, 3),
)
backoffs = st.builds(
    Backoff,
    failures=st.integers(0, 4),
    until=st.none() | any_moments,
    reason=st.sampled_from(["QUOTA_EXCEEDED", "THROTTLED", "BOOT_FAILED", "UNAVAILABLE"]),
    spec_hash=hashes,
)
pauses = st.builds(
    Pause,
    processes=st.frozensets(st.sampled_from(Process)),
    until=st.none() | any_moments,
)
memories = st.builds(
    Memory,
    intents=st.lists(intents, max_size=4, unique_by=lambda each: each.request_id).map(tuple),
    vms=st.dictionaries(ids, remembered, max_size=8),
    backoff=backoffs,
    next_slot=st.integers(0, 100),
    accepted_count=st.none() | st.integers(0, 8),
    breaker_since=st.none() | any_moments,
)
observations = st.builds(
    Observation,
    now=st.just(NOW),
    spec=specs,
    fencing_token=st.just(7),
    vms=st.lists(present, max_size=9, unique_by=lambda each: each.vm_id).map(tuple),
    complete=st.sampled_from([True, True, True, False]),
    probes=st.dictionaries(ids, st.builds(Probe, st.sampled_from(Verdict)), max_size=9),
    memory=memories,
    wishes=st.builds(
        Wishes,
        pause=st.none() | pauses,
        terminations=st.lists(st.builds(TerminationWish, vm_id=ids), max_size=2).map(tuple),
        approved_count=st.none() | st.integers(0, 8),
    ),
    fleet=st.builds(Fleet, failing=st.integers(0, 10), probed=st.integers(10, 40)),
    cloud=st.sampled_from([Cloud(), Cloud(idempotent=False, horizon=seconds(120))]),
)


@given(observations)
@settings(max_examples=600)
def test_every_plan_is_safe_and_says_why_whatever_was_seen(seen: Observation) -> None:
    check_plan(seen, decide(seen))


# --- lives: what happens to a group, one event after the other ---------------------------------


Event = Callable[[World, int], None]
_FATES = ["request lost", "answer lost", "late", "THROTTLED", "UNAVAILABLE"]
_ENDS = ["request lost", "answer lost", "refused"]


def _some(world: World, which: int) -> VmId | None:
    alive = world.alive()
    return alive[which % len(alive)].vm_id if alive else None


def _on_one(change: Callable[[World, VmId], None]) -> Event:
    def event(world: World, which: int) -> None:
        if (vm_id := _some(world, which)) is not None:
            change(world, vm_id)

    return event


def _set_state(state: VmState) -> Event:
    def change(world: World, vm_id: VmId) -> None:
        world.body(vm_id).state = state

    return _on_one(change)


def _set(**facts: object) -> Event:
    """A fact about one VM."""

    def change(world: World, vm_id: VmId) -> None:
        for name, value in facts.items():
            setattr(world.body(vm_id), name, value)

    return _on_one(change)


def _switch(**facts: object) -> Event:
    """A fact about the world."""

    def event(world: World, _: int) -> None:
        for name, value in facts.items():
            setattr(world, name, value)

    return event


def _scale(world: World, which: int) -> None:
    world.spec = replace(world.spec, count=which)
    world.wishes = replace(world.wishes, approved_count=which)


def _wish(world: World, vm_id: VmId) -> None:
    wish = TerminationWish(vm_id=vm_id, actor="ann", reason="it smells")
    world.wishes = replace(world.wishes, terminations=(wish,))


def _pause(world: World, which: int) -> None:
    process = list(Process)[which % len(Process)]
    world.wishes = replace(world.wishes, pause=Pause(processes=frozenset({process})))


def _shut_down_soon(world: World, vm_id: VmId) -> None:
    world.body(vm_id).shutdown_at = world.now + seconds(300)


def _shut_down_all(world: World, _: int) -> None:
    for body in world.bodies:
        body.shutdown_at = world.now + seconds(200)


def _stop_what_is_due(world: World, _: int) -> None:
    for body in world.bodies:
        if body.shutdown_at is not None and body.shutdown_at <= world.now:
            body.state = VmState.STOPPED


def _lose_creates(world: World, which: int) -> None:
    world.create_faults = [_FATES[(which + number) % len(_FATES)] for number in range(3)]


def _lose_terminations(world: World, which: int) -> None:
    world.terminate_faults = [_ENDS[(which + number) % 3] for number in range(2)]


def _squeeze(world: World, which: int) -> None:
    world.room.quota = which


def _new_spec(world: World, which: int) -> None:
    world.spec = replace(world.spec, spec_hash=f"spec-{which}")


def _blind_for_one(world: World, vm_id: VmId) -> None:
    world.blind_only = world.blind_only | {vm_id}


EVENTS: dict[str, Event] = {
    "nothing": _switch(),
    "scale": _scale,
    "killed": _set_state(VmState.TERMINATED),
    "failed": _set_state(VmState.ERROR),
    "vanished": _on_one(lambda world, vm_id: world.vanish(vm_id)),
    "hangs": _set(is_hung=True),
    "recovers": _set(is_hung=False),
    "stopped": _set_state(VmState.STOPPED),
    "moved": _set_state(VmState.TRANSITIONING),
    "unknown": _set_state(VmState.UNKNOWN),
    "runs": _set_state(VmState.RUNNING),
    "protected": _set(is_protected=True),
    "deletion refused": _set(undeletable="refused"),
    "deletion ignored": _set(undeletable="ignored"),
    "shutdown soon": _on_one(_shut_down_soon),
    "shutdown of all": _shut_down_all,
    "shutdown happens": _stop_what_is_due,
    "wish": _on_one(_wish),
    "pause": _pause,
    "resume": _switch(wishes=Wishes()),
    "creates fail": _lose_creates,
    "terminations fail": _lose_terminations,
    "quota": _squeeze,
    "no quota": lambda world, _: _squeeze(world, 1000),
    "slow listing": _switch(lag=seconds(40)),
    "fast listing": _switch(lag=seconds(0)),
    "listing breaks": _switch(is_listing_whole=False),
    "listing whole": _switch(is_listing_whole=True),
    "blind": _switch(is_blind=True),
    "blind for one": _on_one(_blind_for_one),
    "sees": _switch(is_blind=False, blind_only=frozenset()),
    "prober down": _switch(is_prober_down=True),
    "prober up": _switch(is_prober_down=False),
    "bad image": _switch(is_stillborn=True),
    "good image": _switch(is_stillborn=False),
    "slow boot": _switch(boot=seconds(700)),
    "fast boot": _switch(boot=seconds(20)),
    "new spec": _new_spec,
    "crash before sending": _switch(crash="before sending"),
    "crash before recall": _switch(crash="before recall"),
    "restart": lambda world, _: world.restart(),
    "clock set back": _switch(behind=timedelta(hours=3)),
}


def _of(names: list[str]) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    event = st.tuples(st.sampled_from(names), st.integers(0, 8), st.integers(1, 12))
    return st.lists(event, max_size=20)


# A few kinds of events a life, again and again: what goes wrong together is found sooner.
events = st.lists(st.sampled_from(sorted(EVENTS)), min_size=1, max_size=6, unique=True).flatmap(_of)
worlds = st.builds(
    World,
    spec=st.builds(
        Spec,
        name=st.just(PresetName("web")),
        count=st.integers(0, 8),
        spec_hash=st.just(SPEC),
        check=st.none() | st.just(Check()),
        policy=st.builds(
            Policy,
            max_surge=st.integers(0, 2),
            max_unavailable=st.integers(0, 2),
            max_deletions_per_cycle=st.none() | st.integers(1, 3),
            oldest_leaves_first=st.booleans(),
        ),
    ),
    idempotent=st.booleans(),
    step=st.sampled_from([seconds(5), seconds(10), seconds(45)]),
    lag=st.sampled_from([seconds(0), seconds(40)]),
    create_faults=st.lists(st.sampled_from(["", *_FATES]), max_size=4),
    terminate_faults=st.lists(st.sampled_from(["", *_ENDS]), max_size=4),
)


def live(world: World, happenings: list[tuple[str, int, int]]) -> None:
    for _ in world.cycles(10):
        pass
    for name, which, cycles in happenings:
        EVENTS[name](world, which)
        for _ in world.cycles(cycles):
            pass


def end_what_no_group_can_mend(world: World) -> None:
    """Faults that need a person by design: too many at once, no room to replace, no check."""
    policy = world.spec.policy
    is_stuck = policy.max_surge == 0 and policy.max_unavailable == 0
    hung = sum(1 for body in world.bodies if body.is_hung)
    if is_stuck or world.spec.check is None or hung >= policy.breaker_count:
        for body in world.bodies:
            body.is_hung = False
    if is_stuck:
        for body in world.bodies:
            body.shutdown_at, body.boots_until = None, world.now
    for body in list(world.bodies):
        if body.has_run_out(world.now):
            world.vanish(body.vm_id)


def converge(world: World) -> None:
    calm = 0
    for plan in world.cycles(600):
        calm = calm + 1 if plan.is_settled and not plan.steps else 0
        if calm > 20:
            break
    assert calm > 20, "never came to rest"
    assert len(world.bodies) == world.spec.count
    assert len(world.serving()) == world.spec.count
    assert not world.memory.intents


@given(worlds, events)
@LIVES
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
    ends=st.lists(st.sampled_from(_ENDS), min_size=1, max_size=4),
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
    _scale(world, count)
    if with_wish:
        EVENTS["wish"](world, count)
    for _ in world.cycles(20):
        pass
    world.heal()
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
