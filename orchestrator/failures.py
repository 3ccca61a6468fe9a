"""Pure: the classes of failed creates: what the first one costs, whether another placement may
help, whether it says anything about the preset, and how people are told.

The class is the reason of the error that the iaas_service gave, or of the kind of that error; what
is not known here waits shortly and tries the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto

# Far beyond any patience, and still a time.
DOUBLINGS = 20


class Scope(Enum):
    """What is left out after a failure, so that the rest may be tried at once."""

    NOTHING = auto()
    FLAVOR_IN_ZONE = auto()
    FLAVOR = auto()
    IMAGE = auto()
    IMAGE_AND_FLAVOR = auto()


@dataclass(frozen=True, slots=True)
class FailureClass:
    """One class of failed creates; its words stand before the cloud's own."""

    first_wait: timedelta
    scope: Scope
    words: str
    is_failure: bool = True
    """False where nothing was sent: it is tried again when it is told to, and nothing doubles."""


_BAD_SPEC = FailureClass(
    timedelta(seconds=30), Scope.IMAGE_AND_FLAVOR, "the cloud does not take the spec: "
)
_AUTH = FailureClass(
    timedelta(seconds=30), Scope.NOTHING, "the credentials of the provider do not allow it: "
)
_OTHER = FailureClass(timedelta(seconds=1), Scope.NOTHING, "")

CLASSES: Mapping[str, FailureClass] = {
    "QUOTA_EXCEEDED": FailureClass(timedelta(seconds=15), Scope.FLAVOR, "the quota is used up: "),
    "NO_CAPACITY": FailureClass(
        timedelta(seconds=15), Scope.FLAVOR_IN_ZONE, "the cloud has no room: "
    ),
    "THROTTLED": FailureClass(
        timedelta(seconds=5), Scope.NOTHING, "the cloud asks for fewer calls: "
    ),
    "BAD_REQUEST": _BAD_SPEC,
    "UNSUPPORTED": _BAD_SPEC,
    "NOT_FOUND": _BAD_SPEC,
    "IMAGE_NOT_FOUND": replace(_BAD_SPEC, scope=Scope.IMAGE),
    "FLAVOR_NOT_FOUND": replace(_BAD_SPEC, scope=Scope.FLAVOR),
    "DENIED": _AUTH,
    "UNAUTHENTICATED": _AUTH,
    "UNAVAILABLE": FailureClass(
        timedelta(seconds=1), Scope.NOTHING, "the cloud cannot be reached: "
    ),
    "BOOT_FAILED": FailureClass(timedelta(seconds=1), Scope.NOTHING, ""),
    # Not doubled, and each try is told: a service that is away for hours must not fill the journal.
    "CLOUD_UNREACHABLE": FailureClass(
        timedelta(seconds=15), Scope.NOTHING, "the cloud cannot be reached: ", is_failure=False
    ),
    "HELD_BACK": FailureClass(
        timedelta(seconds=1),
        Scope.NOTHING,
        "the cloud is left alone for a moment: ",
        is_failure=False,
    ),
    "TOO_MANY_AT_ONCE": FailureClass(
        timedelta(seconds=1), Scope.NOTHING, "the iaas_service is busy: ", is_failure=False
    ),
    "DEADLINE_TOO_SHORT": FailureClass(
        timedelta(0), Scope.NOTHING, "too little time was left: ", is_failure=False
    ),
}


def class_of(reason: str) -> FailureClass:
    """The class of a failure."""
    return CLASSES.get(reason, _OTHER)


def wait_after(
    reason: str, *, before: int, at_least: timedelta | None, longest: timedelta
) -> timedelta:
    """What a failure costs that has so many of its kind `before` it: each doubles the wait, the
    cloud may ask for more, and the preset says where it ends.
    """
    doubled: timedelta = class_of(reason).first_wait * 2 ** min(before, DOUBLINGS)
    return min(max(doubled, at_least or timedelta(0)), longest)
