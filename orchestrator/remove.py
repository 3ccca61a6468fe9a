"""Pure: which VMs are to be destroyed now, for which reason.

People's wishes, the dead, the replaced and the surplus; whatever may still run or hold data is
bounded by the budget.
"""

from __future__ import annotations

from datetime import timedelta

from .model import Judged, Process, Reason, Refusal, Terminate, VmState, VmStatus
from .ranking import leaving_order
from .stock import Stock, process_of, replaceable

REPEAT_TERMINATION_AFTER = timedelta(seconds=60)
RETRY_TERMINATION_AFTER = timedelta(seconds=30)

_REASON = {
    VmStatus.UNHEALTHY: Reason.UNHEALTHY,
    VmStatus.NEARBY_SHUTDOWN: Reason.TIMED_SHUTDOWN,
    VmStatus.AFTER_TIME_SHUTDOWN: Reason.TIMED_SHUTDOWN,
    VmStatus.PENDING: Reason.BOOT_TIMEOUT,
}
# What keeps a cloud from making one more VM.
_NO_ROOM = {"QUOTA_EXCEEDED", "NO_CAPACITY"}


def remove(stock: Stock) -> tuple[tuple[Terminate, ...], tuple[Refusal, ...]]:
    """Who goes now, each once; of several reasons the weightiest is told."""
    wished = _wished(stock)
    corpses, corpse_notes = _corpses(stock)
    failed, others = _split_by_cost(corpses)
    spending, spend_notes = _over(stock)
    paid, budget_notes = _within_budget([*failed, *spending], stock)
    chosen = {step.vm.vm_id: step for step in (*paid, *others, *_repeated(stock), *wished)}
    return tuple(chosen.values()), (*corpse_notes, *spend_notes, *budget_notes)


def _wished(stock: Stock) -> list[Terminate]:
    wishes = {wish.vm_id: wish for wish in stock.seen.wishes.terminations}
    return [
        Terminate(
            vm=each.vm,
            reason=Reason.OPERATOR,
            evidence=f"asked for by {wish.actor or 'somebody'}: {wish.reason or 'no reason given'}",
            force=wish.force,
        )
        for each in stock.judged
        if (wish := wishes.get(each.vm.vm_id)) and each.status is not VmStatus.DELETING
    ]


def _corpses(stock: Stock) -> tuple[list[Terminate], tuple[Refusal, ...]]:
    dead = [
        each
        for each in stock.judged
        if each.status in {VmStatus.TERMINATED, VmStatus.ERROR}
        and not each.vm.protected
        and not _was_asked_lately(each, stock)
        and _may_retry(each, stock)
    ]
    if dead and stock.is_paused(Process.REPLACE):
        return [], (stock.paused(Process.REPLACE, f"{len(dead)} VMs are dead"),)
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
        steps += [_leave(each) for each in leaving[:number] if _may_retry(each, stock)]
        notes = (*notes, *refusals)
    surplus = over - len(stock.leaving)
    if surplus > 0:
        extra, refusals = _surplus(stock, surplus)
        steps += extra
        notes = (*notes, *refusals)
    return steps, notes


def _replaced(stock: Stock, over: int) -> tuple[int, tuple[Refusal, ...]]:
    """How many leaving VMs may go: as many as are replaced, or one where nothing can surge."""
    ready = len(stock.sound) + len(stock.open_intents) - stock.warming
    if over > 0 and (stock.warming == 0 or ready >= stock.count):
        return over, ()
    if over > 0 or stock.warming:
        message = "a leaving VM stays until its replacement is ready"
        return 0, (Refusal("WAITING_FOR_REPLACEMENT", message),)
    policy = stock.seen.spec.policy
    if policy.max_surge > 0 and stock.memory.backoff.reason not in _NO_ROOM:
        return 0, ()
    if over - 1 < -policy.max_unavailable:
        message = f"no room for a replacement, and max_unavailable is {policy.max_unavailable}"
        return 0, (Refusal("NO_ROOM", message),)
    return 1, ()


def _surplus(stock: Stock, number: int) -> tuple[list[Terminate], tuple[Refusal, ...]]:
    if stock.is_paused(Process.SCALE_IN):
        return [], (stock.paused(Process.SCALE_IN, f"{number} VMs are too many"),)
    order = leaving_order(stock.sound, oldest_first=stock.seen.spec.policy.oldest_leaves_first)
    chosen = [each for each in order if _may_retry(each, stock)][:number]
    evidence = f"{len(stock.alive)} VMs are alive, {stock.count} are declared"
    steps = [Terminate(vm=each.vm, reason=Reason.SURPLUS, evidence=evidence) for each in chosen]
    if len(order) < number:
        left = number - len(order)
        message = f"{left} surplus VMs are stopped, protected or unknown: left alone"
        return steps, (Refusal("PARKED", message),)
    return steps, ()


def _repeated(stock: Stock) -> list[Terminate]:
    """Terminations that the cloud accepted and did not carry out."""
    return [
        Terminate(
            vm=each.vm,
            reason=Reason.DEAD,
            evidence="its termination was accepted and did not happen",
        )
        for each in stock.judged
        if each.status is VmStatus.DELETING
        and each.memory.terminating_since is not None
        and not _was_asked_lately(each, stock)
    ]


def _leave(judged: Judged) -> Terminate:
    return Terminate(vm=judged.vm, reason=_REASON[judged.status], evidence=judged.reason)


def _was_asked_lately(judged: Judged, stock: Stock) -> bool:
    since = judged.memory.terminating_since
    return since is not None and stock.seen.now - since < REPEAT_TERMINATION_AFTER


def _may_retry(judged: Judged, stock: Stock) -> bool:
    failed_at = judged.memory.terminate_failed_at
    return failed_at is None or stock.seen.now - failed_at >= RETRY_TERMINATION_AFTER


def _within_budget(
    steps: list[Terminate], stock: Stock
) -> tuple[list[Terminate], tuple[Refusal, ...]]:
    declared = stock.seen.spec.policy.max_deletions_per_cycle
    budget = declared if declared is not None else max(1, max(stock.count, len(stock.alive)) // 10)
    if len(steps) <= budget:
        return steps, ()
    message = f"{len(steps) - budget} more VMs are to go; {budget} a cycle is the budget"
    return steps[:budget], (Refusal("BUDGET_SPENT", message),)
