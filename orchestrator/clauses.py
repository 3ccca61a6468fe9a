"""Pure: which clause decided. Every word that a plan uses for a reason or a refusal, with the key
of the preset or of the configuration, or else the rule, that it follows from.

Read by `narrate`, `views` and the back-test; decides nothing. Whoever reads "BUDGET_SPENT" learns
here what to change when it is not what they want.
"""

from __future__ import annotations

from .model import Create, Keep, Repair, Step

# Why a failed VM is kept, whatever it failed by.
KEPT = "KEPT_FOR_STUDY"

_CLAUSES = {
    # Reasons of steps
    "MISSING": "count",
    "REPLACEMENT": "policy.max_surge",
    "REPEAT": "rule: a lost answer is asked for again under its own request id",
    "DEAD": "rule: what the cloud gave up is replaced",
    "UNHEALTHY": "healthcheck.fall, healthcheck.min_failing_time",
    "BOOT_TIMEOUT": "policy.boot_timeout",
    "SURPLUS": "count, policy.scale_in_order",
    "TIMED_SHUTDOWN": "policy.shutdown_notice",
    "OPERATOR": "rule: a person asked for it",
    "OUTDATED": "policy.replace",
    "MAX_LIFETIME": "policy.max_lifetime",
    "STOPPED": "policy.on_stopped",
    "STUDY_OVER": "policy.keep_failed, policy.keep_failed_time",
    "PRESET_REMOVED": "policy.on_remove, policy.removal_grace",
    "REBOOT": "policy.reboots",
    "REBUILD": "policy.rebuilds",
    # Refusals
    "AWAITING_VMS": "rule: a create whose VM is not seen yet counts as capacity",
    "BACKOFF": "policy.longest_backoff",
    "BREAKER_OPEN": "policy.breaker_count, policy.breaker_percent, policy.breaker_window, "
    "orchestrator.breaker",
    "BUDGET_SPENT": "policy.max_deletions_per_cycle, policy.max_deletions_per_window",
    "CHECK_FAILED": "rule: an unknown verdict is no verdict",
    "CHECK_UNKNOWN": "rule: an unknown verdict is no verdict",
    "COUNT_NEEDS_APPROVAL": "rule: a count that changes too much at once waits for a person",
    "HEALTH_UNKNOWN": "rule: a verdict is confirmed by a probe of the same cycle",
    KEPT: "policy.keep_failed, policy.keep_failed_time",
    "LISTING_INCOMPLETE": "rule: absence from a list is no proof",
    "NO_PLACEMENT": "flavor, image, network.availability_zone",
    "NO_ROOM": "policy.max_unavailable",
    "PARKED": "policy.on_stopped",
    "PAUSED": "rule: what a person paused rests",
    "PROTECTED": "rule: what is protected is left alone",
    "PROVIDER_CHANGED": "iaas.provider",
    "REMOVALS_NEED_APPROVAL": "orchestrator.removals.percent",
    "REPAIR_SUSPENDED": "policy.suspend_after",
    "REPAIR_UNDER_WAY": "policy.startup_grace",
    "ROLLOUT_STOPPED": "rule: a rollout ends with the first VM that fails before it proved itself",
    "ROLLOUT_WAITING": "policy.canary, policy.min_healthy_time, policy.batch_pause",
    "SLOW_START": "rule: after a failure one VM is tried alone",
    "SURPLUS_STAYS": "policy.max_surge",
    "TERMINATION_FAILED": "rule: a failed termination is tried again after 30 s",
    "TERMINATION_UNKNOWN": "rule: what may be going counts as gone",
    "UNMANAGED": "unmanaged",
    "WAITING_FOR_REPLACEMENT": "policy.max_surge",
}


def clause_of(word: str) -> str:
    """The clause behind a reason or refusal; "" for words of the cloud, the store or a service."""
    return _CLAUSES.get(word, "")


def reason_of(step: Step) -> str:
    """Why a step is taken, in a word."""
    return step.reason if isinstance(step, Create) else step.reason.name


def clause_for(step: Step) -> str:
    """The clause behind a step; a failed VM is kept whatever it failed by."""
    if isinstance(step, Repair):
        return clause_of(step.method.name)
    return clause_of(KEPT if isinstance(step, Keep) else reason_of(step))
