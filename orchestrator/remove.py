"""Pure: which VMs are to be destroyed now, for which reason.

People's wishes, the dead, the replaced and the surplus; whatever may still run or hold data is
bounded by the budget, and what failed may be kept for study instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from . import drift
from .budget import within_budget
from .health import is_confirmed, unconfirmed
from .keeping import notes as keeping_notes
from .keeping import set_aside, studied
from .model import (
    Judged,
    Keep,
    Process,
    Reason,
    Refusal,
    Terminate,
    VmState,
    VmStatus,
)
from .patience import (
    is_in_doubt,
    is_lingering,
    may_retry,
    untouched,
    was_asked_lately,
)
from .ranking import leaving_order, untried_first
from .stock import Stock, has_run_out, process_of, replaceable
from .surplus import trim
from .words import moment, names

# Statuses for which somebody might expect a VM to go.
_EXPOSED = {
    VmStatus.UNHEALTHY,
    VmStatus.NEARBY_SHUTDOWN,
    VmStatus.AFTER_TIME_SHUTDOWN,
    VmStatus.TERMINATED,
    VmStatus.ERROR,
}
# What keeps a cloud from making one more VM.
_NO_ROOM = {"QUOTA_EXCEEDED", "NO_CAPACITY"}


def remove(stock: Stock) -> tuple[tuple[Terminate | Keep, ...], tuple[Refusal, ...]]:
    """Who goes now, each once; of several reasons the weightiest is told."""
    wishes = wished(stock)
    corpses, corpse_notes = _corpses(stock)
    failed, others = _split_by_cost(corpses)
    spending, spend_notes = _over(_without_going(stock, wishes))
    paid, budget_notes = within_budget([*failed, *studied(stock), *spending], stock)
    paid, kept = set_aside(paid, stock)
    steps: tuple[Terminate | Keep, ...] = (*kept, *paid, *others, *_repeated(stock), *wishes)
    chosen = {step.vm.vm_id: step for step in steps}
    return tuple(chosen.values()), (
        *untouched(stock),
        *_left_alone(stock),
        *corpse_notes,
        *spend_notes,
        *budget_notes,
        *keeping_notes(stock),
    )


def wished(stock: Stock) -> list[Terminate]:
    """What people want gone; what somebody protects goes only where they insist."""
    wishes = {wish.vm_id: wish for wish in stock.seen.wishes.terminations}
    return [
        Terminate(
            vm=each.vm,
            reason=Reason.OPERATOR,
            evidence=f"asked for by {wish.actor or 'somebody'}: {wish.reason or 'no reason given'}",
            force=wish.force,
        )
        for each in stock.judged
        if (wish := wishes.get(each.vm.vm_id))
        and (wish.force or not each.vm.protected)
        and not each.memory.is_terminating
        and each.status is not VmStatus.DELETING
        # A refusal of the second try would end a doubt that the first one left.
        and not is_in_doubt(each, stock)
        and may_retry(each, stock)
    ]


def _without_going(stock: Stock, wishes: Iterable[Terminate]) -> Stock:
    """The group less those that go anyway, and those that may be going for all we know."""
    going = {step.vm.vm_id for step in wishes} | {
        each.vm.vm_id for each in stock.alive if is_in_doubt(each, stock)
    }

    def staying(group: Iterable[Judged]) -> tuple[Judged, ...]:
        return tuple(each for each in group if each.vm.vm_id not in going)

    return replace(
        stock,
        alive=staying(stock.alive),
        leaving=staying(stock.leaving),
        sound=staying(stock.sound),
    )


def _corpses(stock: Stock) -> tuple[list[Terminate], tuple[Refusal, ...]]:
    dead = [
        each
        for each in stock.judged
        if each.status in {VmStatus.TERMINATED, VmStatus.ERROR}
        and not each.vm.protected
        and not is_lingering(each, stock)
        and may_retry(each, stock)
    ]
    if dead and stock.is_paused(Process.REPLACE):
        return [], (stock.paused(Process.REPLACE, f"VMs dead: {len(dead)}"),)
    return [Terminate(vm=each.vm, reason=Reason.DEAD, evidence=each.reason) for each in dead], ()


def _split_by_cost(corpses: list[Terminate]) -> tuple[list[Terminate], list[Terminate]]:
    """What the cloud gave up may still hold data: it spends the budget, a mere record does not."""
    failed = [step for step in corpses if step.vm.state is VmState.ERROR]
    return failed, [step for step in corpses if step.vm.state is not VmState.ERROR]


def _over(stock: Stock) -> tuple[list[Terminate], tuple[Refusal, ...]]:
    """Living VMs above the count: those that are leaving and replaced, then the surplus."""
    over = len(stock.alive) - stock.count
    leaving = leaving_order(
        replaceable(stock), oldest_first=stock.seen.spec.policy.oldest_leaves_first
    )
    notes = tuple(
        stock.paused(process_of(each), f"{each.vm.vm_id} is {each.status.name}")
        for each in stock.leaving
        if stock.is_paused(process_of(each))
    )
    steps: list[Terminate] = []
    if leaving:
        number, refusals = _replaced(stock, over)
        fit = [each for each in leaving if may_retry(each, stock)]
        condemned = [each for each in untried_first(fit) if _is_still_failing(each, stock)]
        steps += [_leave(each, stock) for each in condemned[:number]]
        notes = (*notes, *refusals, *_unsure(fit, stock))
    surplus = over - len(stock.leaving)
    if surplus > 0:
        extra, refusals = trim(stock, surplus)
        steps += extra
        notes = (*notes, *refusals)
    return steps, notes


def _replaced(stock: Stock, over: int) -> tuple[int, tuple[Refusal, ...]]:
    """How many leaving VMs may go: as many as are replaced, or one where nothing can surge."""
    ready = len(stock.sound) + len(stock.open_intents) - stock.warming
    if over > 0 and (stock.warming == 0 or ready >= stock.count):
        return _spared(stock, over)
    if over > 0 or stock.warming:
        message = "a leaving VM stays until its replacement is ready"
        return 0, (Refusal("WAITING_FOR_REPLACEMENT", message),)
    policy = stock.seen.spec.policy
    if policy.max_surge > 0 and not _has_no_room(stock):
        return 0, ()
    if stock.is_paused(Process.CREATE):
        return 0, (stock.paused(Process.CREATE, "a leaving VM waits for its replacement"),)
    if over - 1 < -policy.max_unavailable or _spare(stock) < 1:
        message = f"no room for a replacement, and max_unavailable is {policy.max_unavailable}"
        return 0, (Refusal("NO_ROOM", message),)
    return 1, ()


def _spared(stock: Stock, over: int) -> tuple[int, tuple[Refusal, ...]]:
    """How many of those that are replaced may go: a VM that a person stopped replaces nobody."""
    number = min(over, _spare(stock))
    if number > 0:
        return number, ()
    message = "a leaving VM stays: too few others serve, those that are stopped do not"
    return 0, (Refusal("WAITING_FOR_REPLACEMENT", message),)


def _spare(stock: Stock) -> int:
    """How many VMs may go without too few being left that serve; all, if they do not serve."""
    ready = sum(1 for each in stock.alive if each.is_ready)
    is_good = stock.is_turning_over and all(each.is_ready for each in stock.leaving)
    floor = stock.count - stock.seen.spec.policy.max_unavailable
    return ready - floor if is_good else len(stock.leaving)


def _repeated(stock: Stock) -> list[Terminate]:
    """Terminations of ours that the cloud accepted, or began without an answer, and did not carry
    out.
    """
    return [
        Terminate(
            vm=each.vm,
            reason=Reason.DEAD,
            evidence=f"its termination {_fate(each)} and did not happen",
        )
        for each in stock.judged
        if each.status is VmStatus.DELETING
        and each.memory.terminating_since is not None
        and not each.vm.protected
        and not was_asked_lately(each, stock)
        and may_retry(each, stock)
    ]


def _fate(judged: Judged) -> str:
    return "got no answer" if judged.memory.is_doubtful else "was accepted"


def _left_alone(stock: Stock) -> tuple[Refusal, ...]:
    """VMs that somebody might expect to go, and that are not ours to touch."""
    spared = [each for each in stock.judged if _is_spared(each)]
    wishes = stock.seen.wishes.terminations
    wanted = {wish.vm_id for wish in wishes if not wish.force}
    held = [each for each in stock.judged if each.vm.protected and each.vm.vm_id in wanted]
    over = [each for each in stock.judged if has_run_out(each, stock.seen)]
    notes = (
        ("PROTECTED", [each for each in spared if each not in held], "protected, left alone"),
        ("PROTECTED", held, "wanted gone, and protected: end its protection, or ask with force"),
        ("PARKED", over, "stopped by its announced shutdown: replaced, and left alone"),
    )
    return tuple(
        Refusal(code, f"{names(group)}: {message}") for code, group, message in notes if group
    )


def _is_spared(judged: Judged) -> bool:
    return judged.vm.protected and judged.status in _EXPOSED


def _unsure(leaving: Iterable[Judged], stock: Stock) -> tuple[Refusal, ...]:
    held = [each for each in leaving if not _is_still_failing(each, stock)]
    return (unconfirmed(held),) if held else ()


def _is_still_failing(judged: Judged, stock: Stock) -> bool:
    """Whether a probe confirms it, where health is the reason to leave."""
    return judged.status is not VmStatus.UNHEALTHY or is_confirmed(judged, stock.seen)


def _leave(judged: Judged, stock: Stock) -> Terminate:
    reason = judged.leaves_for or Reason.SURPLUS
    return Terminate(vm=judged.vm, reason=reason, evidence=_evidence(judged, stock))


def _evidence(judged: Judged, stock: Stock) -> str:
    if judged.leaves_for is Reason.OUTDATED:
        return drift.evidence(judged, stock.seen.spec)
    if judged.leaves_for is Reason.STOPPED:
        return "stopped by somebody, and the preset wants such VMs replaced"
    if judged.leaves_for is Reason.MAX_LIFETIME:
        return f"born at {moment(judged.born)}, older than its preset allows"
    return judged.reason


def _has_no_room(stock: Stock) -> bool:
    """Whether the cloud said so just now: an older refusal is put to the test first."""
    backoff = stock.memory.backoff
    return (
        backoff.reason in _NO_ROOM
        and backoff.until is not None
        and (stock.seen.now < backoff.until)
    )
