from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.backtest.replay import replay
from orchestrator.model import Check, Replace
from tests.support.timelines import (
    HASTY,
    RECKLESS,
    ends,
    held,
    line,
    standing,
    terms,
    timeline,
    told,
)

RECKLESS_TERMS = terms(check=Check(**HASTY), **RECKLESS)


def hangs(at: float, vm: str = "web-1", **more: Any) -> dict[str, Any]:
    return line(at, "verdict", vm=vm, verdict="UNHEALTHY", message="timed out", **more)


def test_where_nothing_happens_nothing_is_done() -> None:
    story = told()
    assert (story.destroyed, story.creates, story.held, story.missing_seconds) == ((), 0, (), 0)


def test_a_vm_that_hangs_is_replaced_first_and_destroyed_then_with_reason_evidence_and_clause() -> (
    None
):
    story = told(hangs(300))
    [end] = story.destroyed
    assert (end.vm_id, end.reason.name, end.is_made) == ("web-1", "UNHEALTHY", False)
    assert "timed out" in end.evidence
    assert end.clause == "healthcheck.fall, healthcheck.min_failing_time"
    # 30 s of failing, and the minute that its replacement takes.
    assert 390 <= end.at <= 400
    assert story.creates == 1


def test_what_is_destroyed_is_gone_and_what_was_recorded_of_it_later_is_left_out() -> None:
    story = told(
        hangs(300),
        line(900, "verdict", vm="web-1", verdict="HEALTHY"),
        line(1000, "state", vm="web-1", state="ERROR"),
        line(1100, "gone", vm="web-1", by="CLOUD"),
    )
    assert ends(story) == [("web-1", "UNHEALTHY")]


def test_vms_of_its_own_making_boot_in_the_time_of_the_head_and_then_serve() -> None:
    quick = told(line(300, "gone", vm="web-1", by="CLOUD"), boot_time=20)
    slow = told(line(300, "gone", vm="web-1", by="CLOUD"), boot_time=200)
    assert quick.creates == slow.creates == 1
    assert quick.missing_seconds == pytest.approx(20, abs=2)
    assert slow.missing_seconds == pytest.approx(200, abs=2)


def test_new_vms_take_longer_from_when_the_timeline_says_so() -> None:
    story = told(
        line(100, "boot_time", seconds=250), line(300, "gone", vm="web-1", by="CLOUD"), boot_time=20
    )
    assert story.missing_seconds == pytest.approx(250, abs=2)


def test_new_vms_fail_their_check_while_the_timeline_says_so() -> None:
    bad = line(100, "verdict", vm="new", verdict="UNHEALTHY")
    good = line(200, "verdict", vm="new", verdict="HEALTHY")
    gone = line(300, "gone", vm="web-1", by="CLOUD")
    failing = told(bad, gone, under=RECKLESS_TERMS)
    assert {each.is_made for each in failing.destroyed} == {True}
    assert told(bad, good, gone, under=RECKLESS_TERMS).destroyed == ()


def test_new_vms_die_while_the_timeline_says_so() -> None:
    story = told(
        line(100, "state", vm="new", state="ERROR", fault="no valid host"),
        line(300, "gone", vm="web-1", by="CLOUD"),
    )
    assert ("new-1", "DEAD") in ends(story)
    assert "no valid host" in story.destroyed[0].evidence


def test_new_vms_that_never_run_are_given_up_after_their_boot_timeout() -> None:
    story = told(
        line(100, "state", vm="new", state="PENDING"),
        line(300, "gone", vm="web-1", by="CLOUD"),
        under=terms(boot_timeout=timedelta(minutes=5)),
    )
    assert {reason for _, reason in ends(story)} == {"BOOT_TIMEOUT"}


def test_a_bad_birth_is_for_life() -> None:
    story = told(
        line(100, "verdict", vm="new", verdict="UNHEALTHY"),
        line(300, "gone", vm="web-1", by="CLOUD"),
        line(330, "verdict", vm="new", verdict="HEALTHY"),
        under=RECKLESS_TERMS,
    )
    assert ends(story) == [("new-1", "UNHEALTHY")]


def test_what_the_recorded_holder_destroyed_stands_in_the_replay() -> None:
    story = told(line(300, "gone", vm="web-1", by="HOLDER"))
    assert (story.creates, story.missing_seconds) == (0, 0)
    for doer in ("CLOUD", "PERSON"):
        assert told(line(300, "gone", vm="web-1", by=doer)).creates == 1


def test_a_state_that_was_the_recorded_holders_doing_does_not_come_about() -> None:
    assert told(line(300, "state", vm="web-1", state="DELETING", by="HOLDER")).creates == 0
    assert told(line(300, "state", vm="web-1", state="ERROR", by="CLOUD")).creates == 1


def test_what_the_recorded_holder_made_is_not_there_and_what_others_made_is() -> None:
    born = line(300, "vm", vm="web-9", by="HOLDER")
    assert told(born).destroyed == ()
    surplus = told({**born, "by": "PERSON"})
    assert [reason for _, reason in ends(surplus)] == ["SURPLUS"]


def test_a_vm_that_a_person_stops_is_parked_and_counts() -> None:
    story = told(line(300, "state", vm="web-1", state="STOPPED", by="PERSON"))
    assert (story.destroyed, story.creates) == ((), 0)
    assert story.most_missing == 1


def test_what_the_prober_says_of_all_ends_and_each_vm_speaks_for_itself_again() -> None:
    story = told(
        hangs(100, "web-2"),
        line(105, "verdict", vm="all", verdict="UNHEALTHY"),
        line(600, "verdict", vm="all", verdict="EACH"),
        vms=6,
    )
    assert ends(story) == [("web-2", "UNHEALTHY")]
    assert story.destroyed[0].at > 600
    assert held(story)["BREAKER_OPEN"] > 400


def test_a_blind_prober_takes_nothing_from_who_serves() -> None:
    story = told(line(100, "verdict", vm="all", verdict="UNHEALTHY"), vms=6)
    assert (story.missing_seconds, story.most_missing) == (0, 0)


def test_a_prober_that_says_unknown_condemns_nobody_whatever_the_policy() -> None:
    blind = line(100, "verdict", vm="all", verdict="UNKNOWN")
    assert told(blind, under=RECKLESS_TERMS).destroyed == ()


def test_the_others_that_the_prober_sees_open_the_breaker_of_all() -> None:
    others = line(0, "others", failing=5, probed=20)
    assert told(others, hangs(100)).destroyed == ()
    healthy = line(0, "others", failing=0, probed=20)
    assert ends(told(healthy, hangs(100))) == [("web-1", "UNHEALTHY")]


def test_its_own_vms_count_among_those_that_the_prober_sees() -> None:
    blind = line(100, "verdict", vm="all", verdict="UNHEALTHY")
    alone = told(blind, vms=6, under=RECKLESS_TERMS)
    of_many = told(line(0, "others", failing=0, probed=100), blind, vms=6, under=RECKLESS_TERMS)
    assert len(alone.destroyed) < len(of_many.destroyed)


def test_what_a_prober_has_cost_counts_against_it_while_anybody_fails() -> None:
    others = line(0, "others", failing=3, probed=20)
    both = (hangs(100), hangs(300, "web-2"))
    assert [vm for vm, _ in ends(told(others, *both, length=600))] == ["web-1"]
    assert len(told(*both, length=600).destroyed) == 2


def test_the_breaker_that_spares_in_earnest_is_the_one_that_spares_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blind = line(100, "verdict", vm="all", verdict="UNHEALTHY")
    quick_to_judge = terms(check=Check(**HASTY), max_surge=0, startup_grace=timedelta(0))
    assert told(blind, vms=6, under=quick_to_judge).destroyed == ()
    monkeypatch.setattr("orchestrator.breaker.why_open", lambda *_, **__: "")
    assert told(blind, vms=6, under=quick_to_judge).destroyed != ()


def test_on_a_listing_that_is_not_whole_nothing_is_done() -> None:
    story = told(
        line(100, "listing", complete=False, reason="cell 2 is down"),
        line(110, "state", vm="web-1", state="ERROR"),
        line(700, "listing", complete=True),
    )
    assert story.destroyed[0].at >= 700
    assert held(story)["LISTING_INCOMPLETE"] == pytest.approx(600, abs=15)
    assert "cell 2 is down" in story.held[0].message


def test_a_cloud_that_refuses_creates_is_asked_again_until_it_does_not() -> None:
    story = told(
        line(100, "refuses", until=600, reason="QUOTA_EXCEEDED", message="6 of 6 used"),
        line(200, "gone", vm="web-1", by="CLOUD"),
    )
    assert story.creates == 1
    assert story.failed_creates["QUOTA_EXCEEDED"] >= 2
    assert story.missing_seconds > 400
    assert held(story)["BACKOFF"] > 300


def test_a_refusal_without_an_end_lasts_and_one_that_is_over_does_not() -> None:
    gone = line(300, "gone", vm="web-1", by="CLOUD")
    for_ever = told(line(100, "refuses", reason="NO_CAPACITY"), gone)
    assert for_ever.creates == 0
    over = told(line(100, "refuses", until=200, reason="NO_CAPACITY"), gone)
    assert (over.creates, over.failed_creates) == (1, {})


def test_a_refusal_for_one_zone_leaves_the_others() -> None:
    spread = replace(terms(), zones=("a", "b"))
    full = line(0, "refuses", reason="NO_CAPACITY", zone="a")
    gone = [line(300, "gone", vm=f"web-{n}", by="CLOUD") for n in (1, 2)]
    story = told(full, *gone, under=spread)
    assert story.creates == 2
    assert told(full, *gone).creates == 2, "where nothing is chosen no zone is full"


def test_a_count_that_grows_is_followed_at_once_and_a_slip_waits_for_a_person() -> None:
    assert told(line(305, "preset", count=5)).creates == 2
    slip = told(line(305, "preset", count=300))
    assert (slip.creates, list(held(slip))) == (0, ["COUNT_NEEDS_APPROVAL"])
    at_once = told(line(0, "preset", count=300))
    assert (at_once.creates, list(held(at_once))) == (0, ["COUNT_NEEDS_APPROVAL"])
    approved = told(
        line(305, "preset", count=20), line(900, "operator", action="APPROVE", count=20)
    )
    assert approved.creates == 17


def test_a_preset_is_looked_at_more_often_while_something_is_under_way_or_held_back() -> None:
    minute = timedelta(seconds=60)
    under_way = replay(timeline(hangs(295), boot_time=5), terms(), interval=minute)
    # Condemned by the looks at 300, 360 and 420; the replacement runs at 425.
    assert 425 <= under_way.destroyed[0].at < 430
    held_back = replay(
        timeline(
            line(60, "listing", complete=False),
            line(61, "state", vm="web-1", state="ERROR"),
            line(63, "listing", complete=True),
        ),
        terms(),
        interval=minute,
    )
    assert held_back.destroyed[0].at == 65


def test_a_preset_is_looked_at_when_it_changes_and_not_only_at_its_time() -> None:
    scaled = timeline(line(301, "preset", count=2))
    story = replay(scaled, terms(), interval=timedelta(seconds=60))
    assert [each.at for each in story.destroyed] == [301]


def test_a_changed_spec_is_what_new_vms_are_made_of() -> None:
    rolled = terms(replace=Replace.ROLLING)
    story = told(line(300, "preset", spec_hash="spec-2"), under=rolled, length=3600)
    assert {vm for vm, reason in ends(story) if reason == "OUTDATED"} == {"web-1", "web-2", "web-3"}


def test_a_pause_is_kept_for_its_time_and_ends_when_a_person_resumes() -> None:
    pause = line(100, "operator", action="PAUSE", actor="ann", reason="disks")
    dies = line(200, "state", vm="web-1", state="ERROR")
    assert told(pause, dies).creates == 0
    assert told({**pause, "until": 600}, dies).creates == 1
    assert told(pause, dies, line(600, "operator", action="RESUME")).creates == 1
    only_health = {**pause, "processes": ["HEALTH"]}
    assert told(only_health, dies).creates == 1


def test_a_vm_that_a_person_wants_gone_goes_once() -> None:
    story = told(line(300, "operator", action="TERMINATE", vm="web-2", actor="ann"))
    assert ends(story) == [("web-2", "OPERATOR")]
    assert "ann" in story.destroyed[0].evidence
    assert story.creates == 1


def test_a_vm_that_a_person_protects_is_spared() -> None:
    protect = line(100, "operator", action="PROTECT", vm="web-1")
    assert told(protect, hangs(300)).destroyed == ()
    let_go = line(200, "operator", action="UNPROTECT", vm="web-1")
    assert ends(told(protect, let_go, hangs(300))) == [("web-1", "UNHEALTHY")]


def test_a_vm_that_is_protected_in_the_cloud_is_spared() -> None:
    protected = line(0, "vm", vm="web-9", created=-5, protected=True)
    assert told(protected, hangs(300, "web-9"), count=4).destroyed == ()


def test_an_announced_shutdown_is_forestalled() -> None:
    ending = line(0, "vm", vm="web-9", created=-90000, shutdown=1500)
    assert ends(told(ending, count=4)) == [("web-9", "TIMED_SHUTDOWN")]


def test_while_nobody_holds_the_preset_nothing_is_done() -> None:
    story = told(line(300, "holder_lost", until=700), line(310, "state", vm="web-1", state="ERROR"))
    assert story.destroyed[0].at >= 700
    assert story.missing_seconds > 390


def test_another_holder_begins_to_count_failures_anew() -> None:
    undisturbed = told(hangs(300))
    taken_over = told(hangs(300), line(320, "holder_lost", until=321))
    assert taken_over.destroyed[0].at >= undisturbed.destroyed[0].at + 15


def test_a_clock_that_is_set_back_condemns_nobody_early() -> None:
    back = told(hangs(300), line(305, "clock", behind=3600))
    assert back.destroyed[0].at >= told(hangs(300)).destroyed[0].at


def test_evidence_is_told_by_the_clock_of_the_holder() -> None:
    story = told(line(100, "clock", behind=3600), hangs(300))
    assert "failing since 2030-01-01 11:05:00" in story.destroyed[0].evidence
    right = told(line(100, "clock", behind=3600), line(200, "clock", behind=0), hangs(300))
    assert "failing since 2030-01-01 12:05:00" in right.destroyed[0].evidence


def test_a_removed_preset_is_let_go_of() -> None:
    story = told(line(300, "preset", removed=True), hangs(400))
    assert (story.destroyed, story.creates, story.missing_seconds) == ((), 0, 0)
    assert "PRESET_REMOVED" in held(story)


def test_a_removed_preset_that_says_so_is_destroyed_after_its_grace_unless_it_is_restored() -> None:
    deleting = terms(deleted_on_removal=True, removal_grace=timedelta(minutes=10))
    removed = line(300, "preset", removed=True)
    story = told(removed, under=deleting)
    assert {reason for _, reason in ends(story)} == {"PRESET_REMOVED"}
    assert story.destroyed[0].at >= 900
    restored = line(600, "preset", removed=False)
    assert told(removed, restored, under=deleting).destroyed == ()


def test_a_reboot_cures_nothing_that_the_timeline_does_not_say() -> None:
    mended = terms(reboots=1, startup_grace=timedelta(seconds=10))
    can = {"methods": ["REBOOT", "REBUILD"]}
    story = told(hangs(300), under=mended, **can)
    assert [each.method.name for each in story.treated if each.method] == ["REBOOT"]
    assert ends(story) == [("web-1", "UNHEALTHY")]
    cured = told(
        hangs(300), line(360, "verdict", vm="web-1", verdict="HEALTHY"), under=mended, **can
    )
    assert (len(cured.treated), cured.destroyed) == (1, ())


def test_a_rebuilt_vm_is_a_new_one_and_serves() -> None:
    mended = terms(rebuilds=1)
    story = told(hangs(300), under=mended, methods=["REBUILD"])
    assert [each.method.name for each in story.treated if each.method] == ["REBUILD"]
    assert (story.destroyed, story.creates) == ((), 0)
    died = line(900, "state", vm="web-1", state="ERROR")
    assert told(hangs(300), died, under=mended, methods=["REBUILD"]).destroyed == ()
    bad = line(100, "verdict", vm="new", verdict="UNHEALTHY")
    assert ends(told(bad, hangs(300), under=mended, methods=["REBUILD"]))[0][0] == "web-1"


def test_a_provider_that_can_do_neither_repairs_nothing() -> None:
    assert told(hangs(300), under=terms(reboots=3, rebuilds=3)).treated == ()


def test_a_failed_vm_that_is_kept_for_study_is_told_of() -> None:
    story = told(hangs(300), under=terms(keep_failed=1), length=3600)
    assert [(each.vm_id, each.method) for each in story.treated] == [("web-1", None)]
    assert story.destroyed == ()


def test_vms_that_are_older_than_the_timeline_are_past_their_grace() -> None:
    old = line(0, "vm", vm="web-9", created=-3600, verdict="UNHEALTHY")
    story = told(old, count=4, under=terms(startup_grace=timedelta(minutes=20)))
    assert ends(story) == [("web-9", "UNHEALTHY")]
    assert story.destroyed[0].at < 120


def test_a_vm_of_whose_birth_nothing_is_known_has_its_grace_before_it() -> None:
    fresh = line(0, "vm", vm="web-9", verdict="UNHEALTHY")
    story = told(fresh, count=4)
    assert story.destroyed[0].at > 120


def test_without_a_check_nobody_is_condemned_by_a_probe() -> None:
    assert told(hangs(300), under=terms(check=None)).destroyed == ()


def test_an_unmanaged_preset_is_only_watched() -> None:
    watched = replace(terms(), managed=False)
    story = told(line(300, "state", vm="web-1", state="ERROR"), under=watched)
    assert (story.destroyed, story.creates, list(held(story))) == ((), 0, ["UNMANAGED"])


def test_a_refusal_that_comes_back_is_counted_twice_and_its_time_added() -> None:
    story = told(
        line(100, "listing", complete=False),
        line(200, "listing", complete=True),
        line(500, "listing", complete=False),
        line(600, "listing", complete=True),
    )
    [refusal] = story.held
    assert refusal.times == 2
    assert refusal.seconds == pytest.approx(200, abs=20)
    assert refusal.clause == "rule: absence from a list is no proof"


def test_what_is_missing_is_counted_in_vm_seconds_and_at_its_worst() -> None:
    gone = [line(300, "gone", vm=f"web-{n}", by="CLOUD") for n in (1, 2)]
    story = told(*gone, boot_time=100)
    assert story.most_missing == 2
    assert story.missing_seconds == pytest.approx(200, abs=4)


def test_a_vm_that_hangs_does_not_serve() -> None:
    story = told(hangs(300), under=terms(check=Check(observe_only=True)))
    assert (story.most_missing, story.missing_seconds) == (1, 1500)


def test_the_same_timeline_gives_the_same_story() -> None:
    records = (hangs(300), line(400, "gone", vm="web-2", by="CLOUD"))
    assert told(*records) == told(*records)


def test_a_timeline_without_length_is_looked_at_once() -> None:
    assert told(length=0).creates == 0
    empty = replay(timeline(vms=0, count=2, length=0), terms())
    assert empty.creates == 2


def test_a_fleet_that_begins_with_nothing_is_filled() -> None:
    story = told(vms=0, count=4)
    assert story.creates == 4
    assert standing(0) == []
