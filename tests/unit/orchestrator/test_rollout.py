from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Check,
    Intent,
    IntentPhase,
    Memory,
    Observation,
    Process,
    Reason,
    Replace,
    RequestId,
    Rollout,
    Spec,
    Vm,
    VmId,
    VmMemory,
    VmState,
)
from tests.support.given import (
    CONDEMNED,
    FORMER,
    HEALTHY,
    LONG_AGO,
    NOW,
    SERVING,
    SPEC,
    UNHEALTHY,
    codes,
    ended,
    leaving,
    memories,
    outdated,
    paused,
    probes,
    said,
    seconds,
    seen,
    spec,
    vm,
    vm_id,
    vms,
)
from tests.support.world import World

STOPPED = Rollout(spec_hash=SPEC, stopped_at=NOW, stop_message="n died")
BOOTING = VmMemory(first_seen=NOW - seconds(10))
# Ready for too short a time to have proved itself.
FRESH = VmMemory(
    first_seen=NOW - seconds(60),
    first_running=NOW - seconds(40),
    was_healthy=True,
    ready_since=NOW - seconds(20),
)
FAILING = replace(SERVING, failures=1, failing_since=NOW, passes=0, ready_since=None)
FULL = Backoff(
    failures=1, until=NOW + seconds(9), reason="QUOTA_EXCEEDED", message="full", spec_hash=SPEC
)


def rolling(count: int = 3, *, check: Check | None = None, **policy: Any) -> Spec:
    return spec(count, check=check, **{"replace": Replace.ROLLING, **policy})


def remembering(
    what: Spec, present: tuple[Vm, ...], rollout: Rollout | None = None, **more: Any
) -> Observation:
    memory = Memory(accepted_count=what.count, rollout=rollout)
    return seen(what, present, memory=memory, **more)


# --- what is turned over -----------------------------------------------------------------------


@pytest.mark.parametrize("how", [Replace.ON_FAILURE, Replace.NEVER])
def test_outdated_vms_stay_unless_the_preset_rolls(how: Replace) -> None:
    plan = decide(seen(spec(3, replace=how), outdated("abc")))
    assert not plan.steps
    assert plan.is_settled


def test_a_preset_that_does_not_roll_says_how_many_are_outdated_and_how_to_roll() -> None:
    message = said(decide(seen(spec(3), (*outdated("ab"), vm("c")))), "OUTDATED")
    assert "2 of 3" in message
    assert "policy.replace: rolling" in message


def test_where_nothing_is_ever_replaced_nothing_is_said() -> None:
    assert not decide(seen(spec(3, replace=Replace.NEVER), outdated("abc"))).refusals


def test_a_rollout_begins_with_the_canaries_alone() -> None:
    plan = decide(seen(rolling(5, max_surge=3, canary=2), outdated("abcde")))
    assert len(plan.creates) == 2
    assert leaving(plan) == {"a": Reason.OUTDATED, "b": Reason.OUTDATED}
    assert not plan.terminations


def test_without_canaries_it_begins_with_a_whole_batch() -> None:
    plan = decide(seen(rolling(5, max_surge=3, canary=0), outdated("abcde")))
    assert len(plan.creates) == 3


def test_once_the_canaries_are_proved_batches_are_as_large_as_the_surge() -> None:
    plan = decide(seen(rolling(5, max_surge=3), (*outdated("abcd"), vm("n"))))
    assert len(plan.creates) == 3


def test_canaries_that_are_more_than_the_surge_come_one_surge_after_the_other() -> None:
    plan = decide(seen(rolling(3, max_surge=1, canary=9), outdated("abc")))
    assert len(plan.creates) == 1


def test_the_oldest_of_the_outdated_go_first() -> None:
    assert set(leaving(decide(seen(rolling(3), outdated("abc"))))) == {"a"}


def test_one_that_fails_goes_before_an_older_one_that_serves() -> None:
    remembered = memories("ab") | memories("c", FAILING)
    plan = decide(
        seen(
            rolling(3, check=Check()),
            outdated("abc"),
            remembered=remembered,
            probes=probes(c=UNHEALTHY),
        )
    )
    assert set(leaving(plan)) == {"c"}


def test_the_old_one_goes_when_the_new_one_has_proved_itself_and_the_evidence_is_told() -> None:
    plan = decide(seen(rolling(3), (*outdated("abc"), vm("n"))))
    assert ended(plan) == {"a": Reason.OUTDATED}
    assert plan.terminations[0].evidence == "made of spec spec-0, declared is spec-1"


@pytest.mark.parametrize("newest", [BOOTING, FRESH])
def test_the_old_one_stays_until_then(newest: VmMemory) -> None:
    state = VmState.PENDING if newest is BOOTING else VmState.RUNNING
    group = (*outdated("abc"), vm("n", state))
    plan = decide(seen(rolling(3), group, remembered=memories("abc") | memories("n", newest)))
    assert not plan.steps
    assert "WAITING_FOR_REPLACEMENT" in codes(plan)
    assert not plan.is_settled


def test_a_good_old_vm_stays_when_its_replacement_proved_itself_and_fails_now() -> None:
    """What was good for half a minute and is bad now replaces nobody."""
    group = (*outdated("abc"), vm("n"))
    plan = decide(
        seen(
            rolling(3, check=Check()),
            group,
            remembered=memories("abc") | memories("n", FAILING),
            probes=probes(n=UNHEALTHY),
        )
    )
    assert not plan.terminations
    assert "WAITING_FOR_REPLACEMENT" in codes(plan)


def test_a_new_vm_that_somebody_stopped_does_not_hold_up_a_batch_for_ever() -> None:
    group = (*outdated("ab"), vm("p", VmState.STOPPED), vm("n"))
    remembered = memories("abn") | memories("p", BOOTING)
    plan = decide(seen(rolling(3), group, remembered=remembered))
    assert ended(plan) == {"a": Reason.OUTDATED}


def test_what_is_on_its_way_for_a_batch_is_part_of_it() -> None:
    coming = Intent(
        request_id=RequestId("r"), name="n", spec_hash=SPEC, phase=IntentPhase.SENT, sent_at=NOW
    )
    memory = Memory(accepted_count=3, intents=(coming,))
    plan = decide(seen(rolling(3), outdated("abc"), memory=memory))
    assert len(leaving(plan)) == 1
    assert len(plan.memory.intents) == 1


# --- between batches ---------------------------------------------------------------------------


def test_the_next_batch_waits_until_the_new_ones_have_proved_themselves() -> None:
    group = (*outdated("ab"), vm("n"))
    plan = decide(seen(rolling(3), group, remembered=memories("ab") | memories("n", FRESH)))
    assert not plan.steps
    assert "n" in said(plan, "ROLLOUT_WAITING")
    assert not plan.is_settled


@pytest.mark.parametrize(("pause", "begins"), [(9, True), (11, False)])
def test_and_for_the_pause_between_batches(pause: float, *, begins: bool) -> None:
    proved = replace(FRESH, ready_since=NOW - seconds(40))
    what = rolling(3, min_healthy_time=seconds(30), batch_pause=seconds(pause))
    group = (*outdated("ab"), vm("n"))
    plan = decide(seen(what, group, remembered=memories("ab") | memories("n", proved)))
    assert bool(plan.creates) is begins
    assert ("ROLLOUT_WAITING" in codes(plan)) is not begins


def test_whatever_of_the_new_spec_fails_later_holds_up_the_next_batch() -> None:
    group = (*outdated("ab"), vm("n"))
    plan = decide(
        seen(
            rolling(3, check=Check()),
            group,
            remembered=memories("ab") | memories("n", FAILING),
            probes=probes(n=UNHEALTHY),
        )
    )
    assert not plan.creates
    assert "ROLLOUT_WAITING" in codes(plan)


def test_what_somebody_stopped_holds_up_nothing() -> None:
    group = (*outdated("ab"), vm("n", VmState.STOPPED))
    assert decide(seen(rolling(3), group)).creates


def test_a_sick_outdated_vm_is_replaced_before_the_next_batch() -> None:
    remembered = memories("bc") | memories("a", CONDEMNED)
    plan = decide(
        seen(
            rolling(3, check=Check()),
            outdated("abc"),
            remembered=remembered,
            probes=probes(a=UNHEALTHY),
        )
    )
    assert leaving(plan) == {"a": Reason.UNHEALTHY}
    assert len(plan.creates) == 1


@pytest.mark.parametrize("on_its_way", [True, False])
def test_no_batch_begins_while_a_vm_is_missing(*, on_its_way: bool) -> None:
    coming = Intent(
        request_id=RequestId("r"), name="n", spec_hash=SPEC, phase=IntentPhase.SENT, sent_at=NOW
    )
    slow = replace(FULL, reason="THROTTLED")
    memory = Memory(accepted_count=3, intents=(coming,) if on_its_way else (), backoff=slow)
    assert not leaving(decide(seen(rolling(3), outdated("ab"), memory=memory)))


def test_no_batch_begins_while_another_vm_is_still_being_replaced() -> None:
    """It is condemned, its replacement stands, and its last probe does not confirm it."""
    remembered = memories("bcn") | memories("a", CONDEMNED)
    plan = decide(
        seen(
            rolling(3, check=Check(), max_surge=2),
            (*outdated("abc"), vm("n")),
            remembered=remembered,
            probes={vm_id(name): HEALTHY for name in "bcn"},
        )
    )
    assert leaving(plan) == {"a": Reason.UNHEALTHY}


# --- where there is no room --------------------------------------------------------------------


def test_without_a_surge_the_old_one_goes_first_and_alone() -> None:
    what = rolling(3, max_surge=0, canary=3, max_deletions_per_cycle=9)
    plan = decide(seen(what, outdated("abc")))
    assert ended(plan) == {"a": Reason.OUTDATED}
    assert not plan.creates
    after = decide(seen(what, outdated("bc")))
    assert len(after.creates) == 1
    assert not after.terminations


def test_where_nothing_may_be_missing_either_it_says_that_there_is_no_room() -> None:
    plan = decide(seen(rolling(3, max_surge=0, max_unavailable=0), outdated("abc")))
    assert not plan.steps
    assert "NO_ROOM" in codes(plan)


def test_no_good_one_goes_first_where_another_does_not_serve_already() -> None:
    what = rolling(4, max_surge=0)
    parked = vm("p", VmState.STOPPED)
    plan = decide(seen(what, (*outdated("abc"), parked)))
    assert not plan.steps
    assert "NO_ROOM" in codes(plan)
    assert decide(
        seen(rolling(4, max_surge=0, max_unavailable=2), (*outdated("abc"), parked))
    ).steps


def test_one_that_does_not_serve_goes_first_all_the_same() -> None:
    what = rolling(4, max_surge=0, check=Check())
    remembered = memories("bc") | memories("a", FAILING)
    group = (*outdated("abc"), vm("p", VmState.STOPPED))
    plan = decide(seen(what, group, remembered=remembered, probes=probes(a=UNHEALTHY)))
    assert ended(plan) == {"a": Reason.OUTDATED}


def test_a_full_cloud_lets_one_leave_first() -> None:
    memory = Memory(accepted_count=3, backoff=FULL)
    plan = decide(seen(rolling(3), outdated("abc"), memory=memory))
    assert ended(plan) == {"a": Reason.OUTDATED}


# --- whom it leaves alone ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        vm("p", spec_hash=FORMER, protected=True),
        vm("p", VmState.STOPPED, spec_hash=FORMER),
        vm("p", VmState.UNKNOWN, spec_hash=FORMER),
        vm("p", VmState.TRANSITIONING, spec_hash=FORMER),
    ],
    ids=["protected", "stopped", "unknown", "moved"],
)
def test_what_is_a_persons_stays_and_holds_up_nobody(other: Vm) -> None:
    assert set(leaving(decide(seen(rolling(3), (*outdated("ab"), other))))) == {"a"}
    last = decide(seen(rolling(3), (*vms("mn"), other)))
    assert not last.steps
    assert last.is_settled


def test_nobody_waits_for_the_sake_of_a_protected_vm() -> None:
    spared = vm("p", spec_hash=FORMER, protected=True)
    remembered = memories("p") | memories("mn", FRESH)
    plan = decide(seen(rolling(3), (*vms("mn"), spared), remembered=remembered))
    assert "ROLLOUT_WAITING" not in codes(plan)
    assert plan.is_settled


def test_one_that_cannot_be_destroyed_stands_behind_the_others() -> None:
    stuck = replace(SERVING, terminate_failed_at=NOW - seconds(5))
    group = (*outdated("abc"), vm("n"))
    plan = decide(seen(rolling(3), group, remembered=memories("bcn") | memories("a", stuck)))
    assert ended(plan) == {"b": Reason.OUTDATED}


# --- what stops it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "memory"),
    [
        (vm("n", VmState.ERROR), BOOTING),
        (vm("n", VmState.TERMINATED), FRESH),
        (vm("n", VmState.PENDING), VmMemory(first_seen=NOW - seconds(601))),
        (vm("n"), replace(CONDEMNED, was_proved=False)),
    ],
    ids=["given up", "dead after it was ready", "never running", "unhealthy"],
)
def test_a_new_vm_that_fails_before_it_proved_itself_stops_it(new: Vm, memory: VmMemory) -> None:
    what = rolling(3, check=Check())
    remembered = memories("abc") | memories("n", memory)
    plan = decide(
        seen(what, (*outdated("abc"), new), remembered=remembered, probes=probes(n=UNHEALTHY))
    )
    assert "n failed before it proved itself" in said(plan, "ROLLOUT_STOPPED")
    assert "preset resume web" in said(plan, "ROLLOUT_STOPPED")
    assert Reason.OUTDATED not in leaving(plan).values()
    assert plan.memory.rollout is not None
    assert plan.memory.rollout.stopped_at == NOW


@pytest.mark.parametrize(
    ("new", "memory"),
    [
        (vm("n", VmState.TERMINATED), SERVING),
        (vm("n", VmState.ERROR, spec_hash=FORMER), BOOTING),
        (vm("n", VmState.TERMINATED), replace(FRESH, terminating_since=NOW - seconds(30))),
        (vm("n", VmState.ERROR), replace(BOOTING, boot_failure_counted=True)),
        (vm("n"), replace(CONDEMNED, was_proved=False, repaired_at=NOW - seconds(900))),
    ],
    ids=["proved long ago", "of the former spec", "sent away by us", "told before", "repaired"],
)
def test_what_says_nothing_about_the_new_spec_does_not_stop_it(new: Vm, memory: VmMemory) -> None:
    what = rolling(3, check=Check())
    remembered = memories("abc") | memories("n", memory)
    plan = decide(
        seen(what, (*outdated("abc"), new), remembered=remembered, probes=probes(n=UNHEALTHY))
    )
    assert "ROLLOUT_STOPPED" not in codes(plan)


def test_a_prober_that_condemns_everybody_does_not_stop_it() -> None:
    """An open breaker: the fault is more likely ours than the new image's."""
    sick = replace(CONDEMNED, was_proved=False)
    group = (*outdated("abcd"), vm("n"))
    plan = decide(
        seen(
            rolling(4, check=Check()),
            group,
            remembered=memories("abcd", CONDEMNED) | memories("n", sick),
            probes={vm_id(name): UNHEALTHY for name in "abcdn"},
        )
    )
    assert "BREAKER_OPEN" in codes(plan)
    assert "ROLLOUT_STOPPED" not in codes(plan)
    assert plan.memory.backoff.failures == 0
    assert not plan.memory.vms[VmId("n")].boot_failure_counted


def test_a_stopped_rollout_stays_stopped_and_settled() -> None:
    plan = decide(remembering(rolling(3), outdated("abc"), STOPPED))
    assert not plan.steps
    assert plan.is_settled
    assert "3 VMs are of another spec: n died" in said(plan, "ROLLOUT_STOPPED")


def test_another_spec_begins_a_rollout_of_its_own() -> None:
    what = replace(rolling(3), spec_hash="spec-2")
    plan = decide(remembering(what, outdated("abc"), STOPPED))
    assert plan.memory.rollout == Rollout(spec_hash="spec-2")
    assert plan.creates


def test_a_person_who_resumes_the_preset_has_it_go_on() -> None:
    stopped = remembering(rolling(3), outdated("abc"), STOPPED)
    plan = decide(replace(stopped, wishes=replace(stopped.wishes, resumes=1)))
    assert plan.creates
    assert "ROLLOUT_STOPPED" not in codes(plan)


def test_reverting_the_spec_rolls_back_from_what_stands() -> None:
    """VMs of the former spec are current again, and proved: no canary is needed."""
    memory = Memory(accepted_count=4, rollout=replace(STOPPED, spec_hash="spec-2"))
    group = (*vms("ab"), *vms("mn", spec_hash="spec-2"))
    plan = decide(seen(rolling(4, max_surge=2), group, memory=memory))
    assert set(leaving(plan)) == {"m", "n"}
    assert len(plan.creates) == 2


def test_a_stopped_rollout_is_forgotten_once_nothing_is_outdated() -> None:
    assert decide(remembering(rolling(3), vms("abc"), STOPPED)).memory.rollout is None


def test_a_listing_that_is_not_whole_forgets_no_rollout() -> None:
    plan = decide(remembering(rolling(3), vms("a"), STOPPED, complete=False))
    assert plan.memory.rollout == STOPPED


def test_when_it_stops_in_the_middle_of_a_batch_the_good_old_ones_stay() -> None:
    """Three of the new spec, one of them bad: the surplus is what has not proved itself."""
    group = (*outdated("abc"), *vms("xyz", created=NOW - seconds(60)))
    sick = replace(CONDEMNED, was_proved=False, boot_failure_counted=True)
    remembered = memories("abc") | memories("xy", FRESH) | memories("z", sick)
    plan = decide(
        remembering(
            rolling(3, check=Check(), max_surge=3, max_deletions_per_cycle=9),
            group,
            STOPPED,
            remembered=remembered,
            probes={**{vm_id(name): HEALTHY for name in "abcxy"}, vm_id("z"): UNHEALTHY},
        )
    )
    assert set(ended(plan)) == {"x", "y", "z"}


# --- pauses ------------------------------------------------------------------------------------


def test_a_paused_rollout_begins_no_batch_and_says_so() -> None:
    plan = decide(seen(rolling(3), outdated("abc"), wishes=paused(Process.ROLLOUT)))
    assert not plan.steps
    assert "3 VMs are outdated" in said(plan, "PAUSED")
    assert "ann" in said(plan, "PAUSED")


def test_nothing_is_said_of_a_pause_that_holds_nothing_up() -> None:
    assert "PAUSED" not in codes(decide(seen(rolling(3), vms("abc"), wishes=paused())))


def test_a_rollout_does_not_shrink_a_group_whose_scaling_in_is_paused() -> None:
    what = rolling(3, max_deletions_per_cycle=9)
    plan = decide(seen(what, outdated("abcdef"), wishes=paused(Process.SCALE_IN)))
    assert not plan.terminations
    assert "PAUSED" in codes(plan)


def test_the_surplus_beside_a_rollout_is_called_surplus() -> None:
    what = rolling(3, max_deletions_per_cycle=9)
    assert sorted(ended(decide(seen(what, outdated("abcdef")))).values(), key=str) == [
        Reason.OUTDATED,
        Reason.SURPLUS,
        Reason.SURPLUS,
    ]


# --- lifetime ----------------------------------------------------------------------------------

OLD: dict[str, Any] = {"max_lifetime": timedelta(days=2)}


def test_what_is_too_old_is_replaced_one_batch_at_a_time_the_oldest_first() -> None:
    plan = decide(seen(spec(5, max_surge=2, **OLD), vms("abcde")))
    assert leaving(plan) == {"a": Reason.MAX_LIFETIME, "b": Reason.MAX_LIFETIME}
    assert len(plan.creates) == 2


def test_the_evidence_says_when_it_was_born() -> None:
    plan = decide(seen(spec(3, **OLD), (*vms("abc"), vm("n", created=NOW))))
    assert ended(plan) == {"a": Reason.MAX_LIFETIME}
    assert "born at 2029-12-29" in plan.terminations[0].evidence


def test_a_vm_that_a_person_stopped_replaces_none_that_serves() -> None:
    group = (*vms("ab"), vm("p", VmState.STOPPED, created=NOW))
    plan = decide(seen(spec(2, max_surge=0, max_unavailable=0, **OLD), group))
    assert not plan.terminations
    assert "WAITING_FOR_REPLACEMENT" in codes(plan)
    assert ended(decide(seen(spec(2, max_surge=0, max_unavailable=1, **OLD), group))) == {
        "a": Reason.MAX_LIFETIME
    }


def test_what_is_young_enough_stays() -> None:
    assert not decide(seen(spec(3, max_lifetime=timedelta(days=4)), vms("abc"))).steps


def test_one_that_has_not_proved_itself_is_never_too_old() -> None:
    """Else VMs that boot for longer than they may live would replace each other, unborn."""
    group = (*vms("abc"), vm("n", VmState.PENDING, created=NOW - seconds(200)))
    remembered = memories("abc") | memories("n", VmMemory(first_seen=NOW - seconds(200)))
    plan = decide(seen(spec(3, max_lifetime=seconds(100)), group, remembered=remembered))
    assert not plan.steps
    assert set(leaving(plan)) == {"a"}


@pytest.mark.parametrize("why", ["stopped", "paused"])
def test_a_rollout_that_rests_is_not_carried_on_in_the_name_of_age(why: str) -> None:
    rollout = STOPPED if why == "stopped" else None
    wishes = paused(Process.ROLLOUT) if why == "paused" else paused(Process.SCALE_IN)
    plan = decide(remembering(rolling(3, **OLD), outdated("abc"), rollout, wishes=wishes))
    assert not plan.steps


def test_a_pause_of_replacing_keeps_the_old_and_says_so() -> None:
    plan = decide(seen(spec(3, **OLD), vms("abc"), wishes=paused(Process.REPLACE)))
    assert not plan.steps
    assert "3 VMs are too old" in said(plan, "PAUSED")


def test_while_repair_is_suspended_age_is_no_reason() -> None:
    failing = Backoff(failures=5, until=NOW, reason="BOOT_FAILED", spec_hash=SPEC)
    memory = Memory(accepted_count=3, backoff=failing, suspended_since=LONG_AGO)
    assert not leaving(decide(seen(spec(3, **OLD), vms("abc"), memory=memory)))


# --- whole lives -------------------------------------------------------------------------------


def lives(world: World, cycles: int) -> None:
    for _ in world.cycles(cycles):
        assert len(world.serving()) >= world.spec.count - world.spec.policy.max_unavailable


def grown(what: Spec, **more: Any) -> World:
    world = World(spec=what, **more)
    for _ in world.cycles(20):
        pass
    assert len(world.serving()) == what.count
    return world


def hashes(world: World) -> set[str]:
    return {body.spec_hash for body in world.alive()}


@pytest.mark.parametrize("surge", [0, 1, 3])
@pytest.mark.parametrize("canary", [0, 1, 9])
def test_a_rollout_ends_with_every_vm_of_the_declared_spec(surge: int, canary: int) -> None:
    what = rolling(4, check=Check(), max_surge=surge, canary=canary)
    world = grown(replace(what, spec_hash=FORMER))
    world.spec = what
    lives(world, 120)
    assert hashes(world) == {SPEC}
    assert decide(world.observe()).is_settled
    assert world.number == 8


def test_a_spec_that_changes_in_the_middle_of_a_rollout_ends_with_the_last_one() -> None:
    what = rolling(5, check=Check(), max_surge=2)
    world = grown(replace(what, spec_hash="one"))
    for name in ("two", "three", "two", "four"):
        world.spec = replace(what, spec_hash=name)
        lives(world, 7)
    lives(world, 120)
    assert hashes(world) == {"four"}


def test_a_rollout_and_another_count_at_once_end_with_both() -> None:
    for count in (2, 9):
        world = grown(replace(rolling(5, check=Check()), spec_hash="one"))
        world.spec = replace(rolling(count, check=Check()), spec_hash="two")
        for _ in world.cycles(200):
            pass
        assert hashes(world) == {"two"}
        assert len(world.serving()) == count


def test_a_rollout_goes_on_where_another_holder_takes_over() -> None:
    world = grown(replace(rolling(4, check=Check()), spec_hash=FORMER))
    world.spec = rolling(4, check=Check())
    for _ in range(12):
        lives(world, 8)
        world.restart()
    lives(world, 40)
    assert hashes(world) == {SPEC}
    assert world.number == 8


def test_new_vms_that_fail_together_after_they_proved_themselves_take_no_old_one_along() -> None:
    """Five new ones serve for a minute and then hang together, before the old ones are gone."""
    what = rolling(5, check=Check(), max_surge=5, canary=0)
    world = grown(replace(what, spec_hash=FORMER))
    world.spec = what
    while decide(world.observe()).terminations == ():
        world.cycle()
    for body in world.bodies:
        body.is_hung = body.spec_hash == SPEC
    before = len(world.serving())
    for _ in world.cycles(60):
        assert len(world.serving()) >= before - 1


def test_a_group_that_is_born_at_once_is_turned_over_one_by_one_for_ever() -> None:
    world = grown(spec(6, check=Check(), max_lifetime=timedelta(minutes=20)))
    for _ in world.cycles(600):
        assert len(world.serving()) >= 6
        assert len(world.alive()) <= 7
    # A hundred minutes: five lives of twenty minutes each.
    assert 6 * 4 <= world.number <= 6 * 7


def test_lives_shorter_than_a_boot_are_never_more_than_one_above_the_count() -> None:
    world = World(spec=spec(2, max_lifetime=seconds(30)), boot=seconds(90))
    for _ in world.cycles(100):
        assert len(world.alive()) <= 3
    assert any(step.vm.vm_id == "vm-1" for step in world.ended)


def test_a_batch_that_had_begun_stays_while_the_rollout_is_paused() -> None:
    begun = (*outdated("abc"), vm("n"))
    remembered = memories("abc") | memories("n", BOOTING)
    rollout = Memory(accepted_count=3, rollout=Rollout(spec_hash=SPEC))
    resting = seen(
        rolling(3),
        begun,
        remembered=remembered,
        memory=rollout,
        wishes=paused(Process.ROLLOUT),
    )
    plan = decide(resting)
    assert not plan.steps
    assert "while it is paused" in said(plan, "SURPLUS_STAYS")
    # More than a batch can be is too much, whatever it is.
    more = seen(
        rolling(3),
        (*begun, vm("o")),
        remembered=remembered | memories("o", BOOTING),
        memory=rollout,
        wishes=paused(Process.ROLLOUT),
    )
    assert ended(decide(more))
