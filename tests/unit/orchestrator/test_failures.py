from __future__ import annotations

import pytest

from orchestrator.failures import CLASSES, Scope, class_of, wait_after
from tests.support.given import seconds


@pytest.mark.parametrize(
    ("reason", "first_wait", "scope"),
    [
        ("QUOTA_EXCEEDED", 15, Scope.FLAVOR),
        ("NO_CAPACITY", 15, Scope.FLAVOR_IN_ZONE),
        ("THROTTLED", 5, Scope.NOTHING),
        ("BAD_REQUEST", 30, Scope.IMAGE_AND_FLAVOR),
        ("NOT_FOUND", 30, Scope.IMAGE_AND_FLAVOR),
        ("UNSUPPORTED", 30, Scope.IMAGE_AND_FLAVOR),
        ("DENIED", 30, Scope.NOTHING),
        ("UNAUTHENTICATED", 30, Scope.NOTHING),
        ("UNAVAILABLE", 1, Scope.NOTHING),
        ("CLOUD_UNREACHABLE", 15, Scope.NOTHING),
        ("BOOT_FAILED", 1, Scope.NOTHING),
    ],
)
def test_each_class_costs_its_time_and_leaves_out_what_it_is_about(
    reason: str, first_wait: float, scope: Scope
) -> None:
    found = class_of(reason)
    assert (found.first_wait, found.scope) == (seconds(first_wait), scope)


def test_what_is_not_known_waits_shortly_and_tries_the_same_again() -> None:
    found = class_of("NEVER_HEARD_OF")
    assert (found.first_wait, found.scope, found.words) == (seconds(1), Scope.NOTHING, "")


def test_people_are_told_whose_fault_it_is() -> None:
    silent = {reason for reason, each in CLASSES.items() if not each.words}
    assert silent == {"BOOT_FAILED"}
    assert all(each.words.endswith(": ") for each in CLASSES.values() if each.words)


@pytest.mark.parametrize(
    ("before", "at_least", "waits"),
    [(0, None, 15), (1, None, 30), (2, None, 60), (2, 90, 90), (2, 30, 60), (10**6, None, 600)],
)
def test_each_failure_doubles_the_wait_between_what_the_cloud_asks_and_the_preset_allows(
    before: int, at_least: float | None, waits: float
) -> None:
    asked = None if at_least is None else seconds(at_least)
    longest = seconds(600)
    found = wait_after("QUOTA_EXCEEDED", before=before, at_least=asked, longest=longest)
    assert found == seconds(waits)


def test_the_cloud_cannot_ask_for_more_than_the_preset_allows() -> None:
    asked, longest = seconds(900), seconds(600)
    assert wait_after("THROTTLED", before=0, at_least=asked, longest=longest) == longest
