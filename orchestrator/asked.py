"""What clients ask of the admin API, validated. Pure; whatever is wrong is a BadRequest that names
the field. Called by the servicer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as pb
from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit import pages
from vmshepherd_kit.errors import BadRequest, Refused, Violation
from vmshepherd_kit.stamps import from_duration, to_timestamp, to_timestamp_if

Row = TypeVar("Row")

LARGEST_PAGE = 1000
DEFAULT_PAGE = 100
MOST_NAMES = 10_000
LONGEST_ACTOR = 256
LONGEST_REASON = 1000
LONGEST_PAUSE = timedelta(days=3650)


def required(value: str, field: str) -> str:
    """A text that must be there."""
    if not value:
        raise wrong(field, "is required")
    return value


def short(value: str, field: str, most: int) -> str:
    """A text that is stored, and so has its limit."""
    if len(value) > most:
        raise wrong(field, f"has at most {most} characters")
    return value


def actor(value: str) -> str:
    """Who asks: it stands in the journal."""
    return short(required(value, "actor"), "actor", LONGEST_ACTOR)


def wrong(field: str, sentence: str) -> BadRequest:
    """The error for one field."""
    return BadRequest(f"{field}: {sentence}", violations=[Violation(field, sentence)])


def page(
    rows: Sequence[Row], size: int, token: str, key: Callable[[Row], list[str]]
) -> tuple[Sequence[Row], str]:
    """One page of rows, in order of their keys, and the token of the next."""
    size = pages.clamp(size, default=DEFAULT_PAGE, maximum=LARGEST_PAGE)
    after = pages.decode(token).get("after", []) if token else []
    if not isinstance(after, list) or not all(isinstance(part, str) for part in after):
        raise wrong("page_token", "is not a token of this method")
    rest = [row for row in sorted(rows, key=key) if key(row) > after]
    found = rest[:size]
    return found, pages.encode({"after": key(found[-1])}) if len(rest) > size else ""


def reconcile(request: pb.ReconcilePresetRequest) -> None:
    """BadRequest when it asks for too much, or for what needs more words."""
    if len(request.presets) > MOST_NAMES:
        raise wrong("presets", f"at most {MOST_NAMES} names")
    if request.approve_count:
        if not request.presets:
            raise wrong("approve_count", "needs the names of presets")
        actor(request.actor)


def pause(request: pb.PausePresetRequest, *, now: datetime) -> view_pb2.Pause:
    """The pause that is asked for."""
    for process in request.processes:
        if process not in view_pb2.Process.values() or process == view_pb2.PROCESS_UNSPECIFIED:
            raise wrong("processes", f"{process} names no process")
    until: datetime | None = None
    if request.HasField("duration"):
        duration = from_duration(request.duration)
        if not timedelta(0) < duration <= LONGEST_PAUSE:
            raise wrong("duration", "must be more than 0, and ten years at most")
        until = now + duration
    return view_pb2.Pause(
        processes=sorted(set(request.processes)),
        actor=actor(request.actor),
        reason=short(request.reason, "reason", LONGEST_REASON),
        since_time=to_timestamp(now),
        until_time=to_timestamp_if(until),
    )


def vm_of(vm: view_pb2.VmView, preset: str) -> None:
    """Refused when the VM belongs to another preset than was said."""
    if vm.preset != preset:
        raise Refused(
            f"VM {vm.vm_id} belongs to preset {vm.preset}, not to {preset}",
            reason="NOT_THIS_PRESET",
        )


def termination(
    request: pb.TerminateVmRequest, vm: view_pb2.VmView, record: record_pb2.OperatorRecord
) -> None:
    """Refused when this VM must not be terminated as asked."""
    vm_of(vm, request.preset)
    if request.force:
        return
    for each in record.protections:
        if each.vm_id == vm.vm_id:
            why = f": {each.reason}" if each.reason else ""
            raise Refused(
                f"VM {vm.vm_id} is protected by {each.actor}{why}; end that "
                f"(vmshepherd vm unprotect {vm.vm_id}), or ask with force",
                reason="PROTECTED",
            )
    if vm.protected:
        raise Refused(f"VM {vm.vm_id} is protected: ask with force", reason="PROTECTED")


def protection(request: pb.ProtectVmRequest, *, now: datetime) -> record_pb2.Protection:
    """The protection that is asked for, or to be ended."""
    return record_pb2.Protection(
        vm_id=required(request.vm_id, "vm_id"),
        actor=actor(request.actor),
        reason=short(request.reason, "reason", LONGEST_REASON),
        since_time=to_timestamp(now),
    )
