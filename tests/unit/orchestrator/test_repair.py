from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.decide import decide
from orchestrator.model import (
    Backoff,
    Cloud,
    Fate,
    Fleet,
    Memory,
    Method,
    Observation,
    Outcome,
    Plan,
    Probe,
    Process,
    Reason,
    Repair,
    Replace,
    TerminationWish,
    VmId,
    VmMemory,
    VmState,
    Wishes,
)
from orchestrator.recall import recall, repairing, restarted
from tests.support.given import (
    CONDEMNED,
    FORMER,
    HEALTHY,
    NOW,
    SERVING,
    SPEC,
    UNHEALTHY,
    UNKNOWN,
    checked,
    codes,
    ended,
    leaving,
    memories,
    paused,
    probes,
    said,
    seconds,
    seen,
    vm,
    vm_id,
    vms,
)
from tests.support.world import World

BOTH = frozenset(Method)
ABLE = Cloud(methods=BOTH)
# Rebooted a moment ago, not back yet.
REBOOTED = VmMemory(
    first_seen=NOW - seconds(9000),
    first_running=NOW - seconds(50),
    reboots=1,
    repaired_at=NOW - seconds(60),
    was_proved=True,
)


def sick(memory: VmMemory = CONDEMNED, **more: Any) -> Observation:
    """Three VMs, `a` is condemned; the policy allows one reboot and one rebuild."""
    what = more.pop("what", checked(3, reboots=1, rebuilds=1))
    facts: dict[str, Any] = {"cloud": ABLE, "probes": probes(a=UNHEALTHY), **more}
    present = facts.pop("present", vms("abc"))
    remembered = facts.pop("remembered", memories("a", memory) | memories("bc"))
    return seen(what, present, remembered=remembered, **facts)


def repaired(plan: Plan) -> dict[str, Method]:
    return {str(step.vm.vm_id): step.method for step in plan.repairs}


def test_by_default_an_unhealthy_vm_is_replaced_at_once() -> None:
    plan = decide(sick(what=checked(3)))
    assert not plan.repairs
    assert leaving(plan) == {"a": Reason.UNHEALTHY}


@pytest.mark.parametrize(
    ("reboots", "rebuilds", "next_step"),
    [(0, 0, Method.REBOOT), (1, 0, Method.REBUILD), (1, 1, None), (9, 9, None)],
)
def test_it_is_rebooted_then_rebuilt_then_replaced(
    reboots: int, rebuilds: int, next_step: Method | None
) -> None:
    plan = decide(sick(replace(CONDEMNED, reboots=reboots, rebuilds=rebuilds)))
    assert repaired(plan) == ({"a": next_step} if next_step else {})
    assert bool(plan.creates) is (next_step is None)
    assert leaving(plan) == ({} if next_step else {"a": Reason.UNHEALTHY})


def test_the_evidence_of_a_repair_is_told() -> None:
    (step,) = decide(sick()).repairs
    assert "connection refused" in step.evidence


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (frozenset[Method](), {}),
        (frozenset({Method.REBUILD}), {"a": Method.REBUILD}),
        (frozenset({Method.REBOOT}), {"a": Method.REBOOT}),
    ],
)
def test_what_the_driver_cannot_do_is_skipped(
    methods: frozenset[Method], expected: dict[str, Method]
) -> None:
    assert repaired(decide(sick(cloud=Cloud(methods=methods)))) == expected


def test_an_outdated_vm_is_not_worth_a_repair() -> None:
    present = (vm("a", spec_hash=FORMER), *vms("bc"))
    plan = decide(sick(present=present))
    assert not plan.repairs
    assert leaving(plan) == {"a": Reason.UNHEALTHY}


def test_unless_being_outdated_makes_no_difference() -> None:
    present = (vm("a", spec_hash=FORMER), *vms("bc"))
    what = checked(3, reboots=1, replace=Replace.NEVER)
    assert repaired(decide(sick(present=present, what=what))) == {"a": Method.REBOOT}


@pytest.mark.parametrize("verdict", [UNKNOWN, HEALTHY])
def test_nothing_is_repaired_unless_a_probe_of_this_cycle_confirms_it(verdict: object) -> None:
    plan = decide(sick(probes={vm_id("a"): verdict}))
    assert not plan.repairs
    assert "HEALTH_UNKNOWN" in codes(plan)


def test_of_several_one_is_repaired_at_a_time() -> None:
    group = vms("abcdefgh")
    remembered = memories("ab", CONDEMNED) | memories("cdefgh")
    what = checked(8, reboots=1)
    both = probes(a=UNHEALTHY, b=UNHEALTHY, c=HEALTHY)
    first = decide(sick(what=what, present=group, remembered=remembered, probes=both))
    assert len(first.repairs) == 1
    after = remembered | memories("b", REBOOTED)
    second = decide(sick(what=what, present=group, remembered=after, probes=both))
    assert not second.repairs
    assert "b: being repaired" in said(second, "REPAIR_UNDER_WAY")
    assert not second.is_settled


def test_one_that_does_not_come_back_holds_the_others_up_for_its_grace_alone() -> None:
    late = replace(REBOOTED, repaired_at=NOW - seconds(121), first_running=None)
    remembered = memories("a", CONDEMNED) | memories("b", late) | memories("c")
    assert repaired(decide(sick(remembered=remembered))) == {"a": Method.REBOOT}


def test_a_protected_vm_is_not_repaired() -> None:
    spared = decide(sick(present=(vm("a", protected=True), *vms("bc"))))
    assert not spared.repairs
    assert codes(spared) == {"PROTECTED"}
    assert not decide(sick(wishes=Wishes(protections=frozenset({vm_id("a")})))).repairs


def test_a_pause_of_health_is_respected_and_told() -> None:
    plan = decide(sick(wishes=paused(Process.HEALTH)))
    assert not plan.steps
    assert "VMs to be repaired: 1" in said(plan, "PAUSED")


def test_a_check_that_only_observes_repairs_nobody() -> None:
    assert not decide(sick(what=checked(3, observe_only=True, reboots=1))).steps


def test_nothing_is_repaired_under_an_open_breaker() -> None:
    all_sick = {vm_id(name): UNHEALTHY for name in "abc"}
    plan = decide(sick(remembered=memories("abc", CONDEMNED), probes=all_sick))
    assert "BREAKER_OPEN" in codes(plan)
    assert not plan.repairs


def test_nothing_is_repaired_while_repair_is_suspended() -> None:
    births = Backoff(failures=5, until=NOW, reason="BOOT_FAILED", spec_hash=SPEC)
    observation = sick()
    resting = replace(observation.memory, suspended_since=NOW, backoff=births)
    assert not decide(replace(observation, memory=resting)).repairs
    assert decide(observation).repairs


def test_one_that_goes_as_surplus_is_not_repaired_before() -> None:
    remembered = memories("a", CONDEMNED) | memories("bcd")
    plan = decide(sick(present=vms("abcd"), remembered=remembered))
    assert ended(plan) == {"a": Reason.SURPLUS}
    assert not plan.repairs


def test_one_that_a_person_wants_gone_is_not_repaired_before() -> None:
    wishes = Wishes(terminations=(TerminationWish(vm_id=vm_id("a")),))
    plan = decide(sick(wishes=wishes))
    assert ended(plan) == {"a": Reason.OPERATOR}
    assert not plan.repairs


def test_one_that_may_be_going_for_all_we_know_is_not_repaired() -> None:
    doubtful = replace(
        CONDEMNED,
        terminating_since=NOW - seconds(5),
        terminate_failed_at=NOW - seconds(5),
    )
    assert not decide(sick(doubtful)).repairs


# --- what is remembered ------------------------------------------------------------------------


def step_of(plan: Plan) -> Repair:
    (step,) = plan.repairs
    return step


def test_a_repair_is_written_down_before_it_is_sent_and_gives_the_vm_its_grace_again() -> None:
    plan = decide(sick())
    memory = repairing(plan.memory, plan.repairs, now=NOW).vms[VmId("a")]
    assert (memory.reboots, memory.rebuilds, memory.repaired_at) == (1, 0, NOW)
    again = decide(sick(memory))
    assert not again.steps
    assert again.memory.vms[VmId("a")].failures == 0


@pytest.mark.parametrize(
    ("fate", "reason", "tries"),
    [
        (Fate.DONE, "", 1),
        (Fate.UNKNOWN, "OUTCOME_UNKNOWN", 1),
        (Fate.FAILED, "CONFLICT", 1),
        (Fate.FAILED, "BUDGET_SPENT", 0),
        (Fate.FAILED, "UNAVAILABLE", 0),
        (Fate.FAILED, "CLOUD_UNREACHABLE", 0),
        # The cloud is at something else with this very VM, perhaps for ever.
        (Fate.FAILED, "CLOUD_BUSY", 1),
        (Fate.FAILED, "CLOUD_FAILING", 0),
        (Fate.FAILED, "CELL_DOWN", 0),
        (Fate.FAILED, "HELD_BACK", 0),
    ],
)
def test_a_try_counts_unless_the_refusal_says_nothing_about_the_vm(
    fate: Fate, reason: str, tries: int
) -> None:
    plan = decide(sick())
    known = replace(plan, memory=repairing(plan.memory, plan.repairs, now=NOW))
    outcome = Outcome(step=step_of(plan), fate=fate, reason=reason)
    memory = recall(known, [outcome], spec=checked(3), now=NOW)
    assert memory.vms[VmId("a")].reboots == tries


def test_a_takeover_forgets_no_repair() -> None:
    memory = restarted(Memory(vms={VmId("a"): replace(REBOOTED, rebuilds=2)}), NOW).vms[VmId("a")]
    assert (memory.reboots, memory.rebuilds, memory.repaired_at) == (1, 2, NOW)


def test_repairs_are_forgotten_after_an_hour_of_being_ready() -> None:
    for minutes, left in ((59, 1), (60, 0)):
        since = NOW - seconds(60 * minutes)
        ready = replace(REBOOTED, was_healthy=True, passes=2, ready_since=since)
        plan = decide(sick(ready, probes=probes(a=HEALTHY)))
        assert plan.memory.vms[VmId("a")].reboots == left


def test_a_rebuilt_vm_may_come_back_with_another_image_by_name() -> None:
    named = replace(CONDEMNED, reboots=1, first_image="web-1", first_flavor="small")
    plan = decide(sick(named))
    memory = repairing(plan.memory, plan.repairs, now=NOW).vms[VmId("a")]
    assert (memory.rebuilds, memory.first_image, memory.first_flavor) == (1, "", "")


# --- whole lives -------------------------------------------------------------------------------


def hanging(**policy: Any) -> World:
    world = World(spec=checked(3, **policy), methods=BOTH)
    for _ in world.cycles(10):
        pass
    world.bodies[0].is_hung = True
    return world


@pytest.mark.parametrize("losses", [0, 1, 5])
def test_a_vm_is_never_repaired_more_often_than_allowed_whatever_answers_are_lost(
    losses: int,
) -> None:
    world = hanging(reboots=2)
    world.repair_faults = ["request lost"] * losses
    tries = 0
    for number, plan in enumerate(world.cycles(200)):
        tries += sum(1 for step in plan.repairs if step.vm.vm_id == "vm-1")
        if number % 20 == 0:
            world.restart()
    assert tries <= 2
    assert len(world.serving()) == 3


def test_a_vm_that_the_cloud_is_busy_with_for_ever_is_replaced_in_the_end() -> None:
    world = hanging(reboots=2)
    world.repair_faults = ["CLOUD_BUSY"] * 1000
    for _ in world.cycles(200):
        pass
    assert len(world.serving()) == 3


def test_a_holder_that_dies_in_the_middle_of_a_repair_does_not_repeat_it() -> None:
    world = hanging(reboots=1)
    world.repair_faults = ["request lost"]
    while not decide(world.observe()).repairs:
        world.cycle()
    world.crash = "before recall"
    assert sum(len(plan.repairs) for plan in world.cycles(120)) == 1
    assert len(world.serving()) == 3


@pytest.mark.parametrize(("ago", "is_settled"), [(30, False), (130, True)])
def test_a_group_of_which_one_is_being_repaired_is_not_at_rest(
    ago: float,
    is_settled: bool,  # noqa: FBT001
) -> None:
    restarting = replace(SERVING, reboots=1, repaired_at=NOW - seconds(ago), ready_since=None)
    plan = decide(
        seen(
            checked(3, reboots=1),
            (*vms("ab"), vm("c", VmState.TRANSITIONING)),
            remembered=memories("ab") | memories("c", restarting),
        )
    )
    assert plan.is_settled is is_settled


BOTH_SICK = probes(a=UNHEALTHY, b=UNHEALTHY)


@pytest.mark.parametrize(
    ("said_of", "fleet", "is_repaired"),
    [
        (BOTH_SICK, Fleet(failing=2, probed=2), False),
        (BOTH_SICK, Fleet(failing=2, probed=3), True),
        (probes(a=UNHEALTHY, b=HEALTHY), Fleet(failing=1, probed=1), True),
        # Of one VM alone nobody can be a witness.
        (probes(a=UNHEALTHY), Fleet(failing=1, probed=1), True),
    ],
)
def test_nobody_is_repaired_on_the_word_of_a_prober_that_finds_nobody_well(
    said_of: dict[VmId, Probe],
    fleet: Fleet,
    is_repaired: bool,  # noqa: FBT001
) -> None:
    group = vms("ab"[: len(said_of)])
    what = checked(len(group), reboots=1)
    remembered = memories("ab", CONDEMNED)
    plan = decide(
        sick(what=what, present=group, remembered=remembered, probes=said_of, fleet=fleet)
    )
    assert bool(plan.repairs) is is_repaired
    # Without a witness the replacement that passes will be one.
    assert bool(plan.creates) is not is_repaired
