from __future__ import annotations

import pytest

from orchestrator.failures import CLASSES, Scope, class_of
from tests.support.given import seconds


@pytest.mark.parametrize(
    ("reason", "first_wait", "scope"),
    [
        ("QUOTA_EXCEEDED", 15, Scope.FLAVOR),
        ("NO_CAPACITY", 15, Scope.FLAVOR_IN_ZONE),
        ("THROTTLED", 5, Scope.NOTHING),
        ("INVALID_ARGUMENT", 30, Scope.IMAGE_AND_FLAVOR),
        ("NOT_FOUND", 30, Scope.IMAGE_AND_FLAVOR),
        ("PERMISSION_DENIED", 30, Scope.NOTHING),
        ("UNAUTHENTICATED", 30, Scope.NOTHING),
        ("UNAVAILABLE", 1, Scope.NOTHING),
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
