"""What Nova says a server is doing, in the words of the port.

Pure; the table of docs/openstack.md is this one.  What is not known here is UNKNOWN, and then
nobody touches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...domain import VmState

STATUSES: Final = {
    "ACTIVE": VmState.RUNNING,
    "BUILD": VmState.PENDING,
    "REBUILD": VmState.PENDING,
    # Parked by somebody, disks and all: to be left alone.
    "SHUTOFF": VmState.STOPPED,
    "SUSPENDED": VmState.STOPPED,
    "PAUSED": VmState.STOPPED,
    "SHELVED": VmState.STOPPED,
    "SHELVED_OFFLOADED": VmState.STOPPED,
    "RESCUE": VmState.STOPPED,
    # Under somebody's hands, and soon what it was.
    "RESIZE": VmState.TRANSITIONING,
    "VERIFY_RESIZE": VmState.TRANSITIONING,
    "REVERT_RESIZE": VmState.TRANSITIONING,
    "MIGRATING": VmState.TRANSITIONING,
    "REBOOT": VmState.TRANSITIONING,
    "HARD_REBOOT": VmState.TRANSITIONING,
    "PASSWORD": VmState.TRANSITIONING,
    "ERROR": VmState.ERROR,
    "DELETED": VmState.TERMINATED,
    "SOFT_DELETED": VmState.TERMINATED,
    "UNKNOWN": VmState.UNKNOWN,
}
"""Every status of Nova's API, by its name there."""

_DELETING: Final = frozenset({"deleting", "soft-deleting"})
# Of a server that runs on meanwhile.
_HARMLESS: Final = frozenset(
    {
        "image_snapshot",
        "image_snapshot_pending",
        "image_pending_upload",
        "image_uploading",
        "image_backup",
    }
)
# Powers that an active server should not have.
_POWER: Final = {3: "PAUSED", 4: "SHUTDOWN", 6: "CRASHED", 7: "SUSPENDED"}
_SHUT_DOWN: Final = 4


def state(server: Mapping[str, Any]) -> VmState:
    """What the server is doing."""
    found = STATUSES.get(server.get("status", ""), VmState.UNKNOWN)
    task = server.get("OS-EXT-STS:task_state")
    if found is VmState.UNKNOWN or found is VmState.TERMINATED:
        return found
    if task in _DELETING:
        return VmState.DELETING
    if found is VmState.RUNNING and server.get("OS-EXT-STS:power_state") == _SHUT_DOWN and not task:
        # Shut down from within; Nova itself notes it minutes later.
        return VmState.STOPPED
    if task and task not in _HARMLESS and found in {VmState.RUNNING, VmState.STOPPED}:
        return VmState.TRANSITIONING
    if task and task.startswith("reboot") and found is VmState.ERROR:
        return VmState.TRANSITIONING
    return found


def is_deleted(server: Mapping[str, Any]) -> bool:
    """Whether only a record is left, which nobody but an administrator brings back."""
    return server.get("status") in {"DELETED", "SOFT_DELETED"}


def is_reclaimed(server: Mapping[str, Any]) -> bool:
    """Whether somebody deleted it, and the cloud keeps its disk for a while."""
    return server.get("status") == "SOFT_DELETED"


def is_partial(server: Mapping[str, Any]) -> bool:
    """Whether its cell did not answer, so that neither name nor metadata are known."""
    return "metadata" not in server


def cloud_state(server: Mapping[str, Any]) -> str:
    """For people: `ACTIVE`, `ACTIVE/deleting`, `ACTIVE (power CRASHED)`."""
    status = str(server.get("status", ""))
    if task := server.get("OS-EXT-STS:task_state"):
        status = f"{status}/{task}"
    power = _POWER.get(server.get("OS-EXT-STS:power_state", 0))
    return f"{status} (power {power})" if power and status == "ACTIVE" else status
