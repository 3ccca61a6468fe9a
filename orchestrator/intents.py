"""Pure: creates whose VM has not been seen yet.

An intent is closed when its VM is seen, or when the cloud says that the VM it named is gone. Until
then it counts as capacity, so an answer that was lost makes no second VM. It is sent again only
under its own request id: at once where the cloud knows request ids, after the horizon where it
does not, and only as what it was: a request id is for one VM. One that is no longer needed, or of
a spec that is declared no more, is dropped when it was surely not sent, or when no whole listing
shows it long after it was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import count, islice
from uuid import UUID, uuid5

from .model import Create, Intent, IntentPhase, Observation, Placement, RequestId

# So long after a create was sent, a whole listing without its VM disproves it on any cloud.
DISPROVED_AFTER = timedelta(seconds=120)

_NAMESPACE = UUID("6f1d3a52-40c7-5f0e-9a57-2f6a3b1f5f7e")


def still_open(seen: Observation) -> tuple[Intent, ...]:
    """Intents whose VM is neither here nor surely gone. Only a complete observation closes any."""
    if not seen.complete:
        return seen.memory.intents
    arrived = {vm.request_id for vm in seen.vms}
    return tuple(
        intent
        for intent in seen.memory.intents
        # A confirmed VM was asked for by id where the listing lacks it: absent now means gone.
        if intent.request_id not in arrived
        and intent.phase is not IntentPhase.CONFIRMED
        and not (_is_of_another_spec(intent, seen) and _is_nothing(intent, seen))
    )


def without_unneeded(
    open_intents: tuple[Intent, ...], number: int, seen: Observation
) -> tuple[Intent, ...]:
    """Open intents, less up to so many that are not needed and of which surely nothing comes."""
    idle = [intent for intent in reversed(open_intents) if _is_nothing(intent, seen)]
    dropped = {intent.request_id for intent in idle[: max(0, number)]}
    return tuple(intent for intent in open_intents if intent.request_id not in dropped)


def to_repeat(open_intents: tuple[Intent, ...], seen: Observation) -> tuple[Create, ...]:
    """Creates to be sent (again) under their own request id."""
    return tuple(
        Create(intent, "REPEAT", "it was asked for, and its VM was not seen yet")
        for intent in open_intents
        if _may_be_sent(intent, seen) and not _is_of_another_spec(intent, seen)
    )


def new_intents(places: Sequence[Placement], seen: Observation) -> tuple[Intent, ...]:
    """A fresh intent for each; their ids follow from what is unique: suite, preset, token, slot.

    A slot whose VM is there is passed over: a store that lost its last writes forgets slots.
    """
    return tuple(
        _intent(seen, slot, place) for slot, place in zip(_free_slots(seen), places, strict=False)
    )


def slot_after(fresh: Sequence[Intent], seen: Observation) -> int:
    """The first slot behind those of these fresh intents."""
    slots = list(islice(_free_slots(seen), len(fresh)))
    return slots[-1] + 1 if slots else seen.memory.next_slot


def _is_of_another_spec(intent: Intent, seen: Observation) -> bool:
    return intent.spec_hash != seen.spec.spec_hash


def _is_nothing(intent: Intent, seen: Observation) -> bool:
    if intent.phase is IntentPhase.PLANNED or intent.sent_at is None:
        return True
    return seen.now - intent.sent_at >= max(seen.cloud.horizon, DISPROVED_AFTER)


def _may_be_sent(intent: Intent, seen: Observation) -> bool:
    if intent.phase is IntentPhase.PLANNED or intent.sent_at is None or seen.cloud.idempotent:
        return True
    return seen.now - intent.sent_at >= seen.cloud.horizon


def _free_slots(seen: Observation) -> Iterator[int]:
    taken = {vm.request_id for vm in seen.vms}
    taken |= {intent.request_id for intent in seen.memory.intents}
    return (slot for slot in count(seen.memory.next_slot) if _request_id(seen, slot) not in taken)


def _request_id(seen: Observation, slot: int) -> RequestId:
    unique = f"{seen.suite_id}/{seen.spec.name}/{seen.fencing_token}/{slot}"
    return RequestId(str(uuid5(_NAMESPACE, unique)))


def _intent(seen: Observation, slot: int, placement: Placement) -> Intent:
    request_id = _request_id(seen, slot)
    return Intent(
        request_id=request_id,
        name=f"{seen.spec.name}-{request_id[:8]}",
        spec_hash=seen.spec.spec_hash,
        placement=placement,
    )
