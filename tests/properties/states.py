"""Random states of a preset: whatever a decision may be asked about, likely things more often."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from hypothesis import strategies as st

from orchestrator.model import (
    Backoff,
    Check,
    Cloud,
    Deletion,
    Fleet,
    Intent,
    IntentPhase,
    Memory,
    Method,
    Observation,
    Pause,
    Placement,
    Policy,
    PresetName,
    Probe,
    Process,
    Removal,
    Replace,
    RequestId,
    Rollout,
    Shortage,
    Spec,
    TerminationWish,
    Verdict,
    Vm,
    VmId,
    VmMemory,
    VmState,
    Wishes,
)
from tests.support.given import CONDEMNED, NOW, SERVING, SPEC, seconds

T = TypeVar("T")

durations = st.sampled_from([seconds(0), seconds(30), seconds(120), seconds(600)])
moments = st.integers(0, 1000).map(lambda ago: NOW - seconds(ago))
# A clock may have been set back since.
any_moments = st.integers(-1000, 1000).map(lambda ago: NOW - seconds(ago))
hashes = st.sampled_from([SPEC, "spec-0"])
VM_IDS = [VmId(f"vm-{number}") for number in range(10)]
ids = st.sampled_from(VM_IDS)
zones = st.sampled_from(["a", "b", "c"])
flavors = st.sampled_from(["big", "small"])
images = st.sampled_from(["new", "old"])


def mostly(usual: T, rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The usual value, and now and then another one."""
    return st.integers(0, 5).flatmap(lambda number: rare if number == 5 else st.just(usual))


def alternatives(names: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """What a preset names in order of preference; nothing at all most of the time."""
    return mostly((), st.lists(names, unique=True, min_size=1, max_size=3).map(tuple))


# Mostly what the file of a preset may say, with numbers small enough that they matter.
policies = st.builds(
    Policy,
    max_surge=st.integers(0, 3),
    max_unavailable=st.integers(0, 3),
    startup_grace=durations,
    boot_timeout=durations,
    max_deletions_per_cycle=st.none() | st.integers(0, 3),
    max_deletions_per_window=mostly(None, st.integers(0, 3)),
    deletion_window=durations,
    shutdown_notice=durations,
    max_lifetime=mostly(None, durations),
    breaker_count=st.sampled_from([3, 1, 9]),
    breaker_percent=st.sampled_from([34, 1, 100]),
    breaker_window=durations,
    longest_backoff=durations,
    suspend_after=st.integers(0, 5),
    reboots=st.integers(0, 2),
    rebuilds=st.integers(0, 1),
    keep_failed=st.integers(0, 2),
    keep_failed_time=durations,
    replace=st.sampled_from(Replace),
    canary=st.integers(0, 3),
    min_healthy_time=durations,
    batch_pause=durations,
    removal_grace=durations,
    oldest_leaves_first=st.booleans(),
    stopped_are_replaced=st.booleans(),
    deleted_on_removal=st.booleans(),
)
checks = st.builds(
    Check,
    fall=st.integers(1, 3),
    rise=st.integers(1, 3),
    observe_only=mostly(usual=False, rare=st.just(value=True)),
)
placements = st.builds(Placement, image=images, flavor=flavors, zone=zones)
requests = st.integers(0, 12).map(lambda number: RequestId(f"r-{number}"))
bodies = st.builds(
    Vm,
    vm_id=st.just(VmId("")),
    state=mostly(VmState.RUNNING, st.sampled_from(VmState)),
    image=images,
    flavor=flavors,
    zone=zones,
    created=st.none() | moments,
    shutdown_at=mostly(None, any_moments),
    protected=mostly(usual=False, rare=st.just(value=True)),
    request_id=requests,
    spec_hash=hashes,
)
odd = st.builds(
    VmMemory,
    first_seen=any_moments,
    first_running=st.none() | any_moments,
    failures=st.integers(0, 3),
    failing_since=st.none() | any_moments,
    passes=st.integers(0, 3),
    was_healthy=st.booleans(),
    is_unhealthy=st.booleans(),
    terminating_since=st.none() | any_moments,
    terminate_failed_at=st.none() | any_moments,
    boot_failure_counted=st.booleans(),
    ready_since=st.none() | any_moments,
    was_proved=st.booleans(),
    reboots=st.integers(0, 3),
    rebuilds=st.integers(0, 3),
    repaired_at=st.none() | any_moments,
    kept_since=mostly(None, any_moments),
    first_image=st.just("") | images,
    first_flavor=st.just("") | flavors,
)
_HALF_REPAIRED = replace(CONDEMNED, reboots=2)
_UNPROVED = replace(SERVING, was_proved=False, ready_since=NOW - seconds(20))
_KEPT = replace(CONDEMNED, kept_since=NOW - seconds(300))
memories_of_vms = st.one_of(
    st.just(SERVING),
    st.just(SERVING),
    st.sampled_from([CONDEMNED, _HALF_REPAIRED, _UNPROVED, _KEPT]),
    odd,
)
probes = st.sampled_from([Probe(verdict) for verdict in Verdict])
intents = st.builds(
    Intent,
    request_id=requests,
    name=st.just("web-1"),
    spec_hash=hashes,
    phase=st.sampled_from(IntentPhase),
    sent_at=st.none() | any_moments,
    attempts=st.integers(0, 3),
    placement=placements,
)
backoffs = st.builds(
    Backoff,
    failures=st.integers(0, 4),
    until=st.none() | any_moments,
    reason=st.sampled_from(["QUOTA_EXCEEDED", "THROTTLED", "BOOT_FAILED", "UNAVAILABLE"]),
    spec_hash=hashes,
)
shortages = st.builds(
    Shortage,
    placement=st.builds(
        Placement,
        image=st.just("") | images,
        flavor=st.just("") | flavors,
        zone=st.just("") | zones,
    ),
    until=any_moments,
    reason=st.sampled_from(["QUOTA_EXCEEDED", "NO_CAPACITY", "NOT_FOUND"]),
    failures=st.integers(1, 4),
)
deletions = st.builds(Deletion, at=any_moments, for_health=st.booleans())
rollouts = st.builds(Rollout, spec_hash=hashes, stopped_at=mostly(None, any_moments))
pauses = st.builds(
    Pause,
    processes=st.frozensets(st.sampled_from(Process)),
    until=st.none() | any_moments,
)
removals = st.builds(Removal, since=moments, held_back=st.sampled_from(["", "too many at once"]))
orders = st.builds(TerminationWish, vm_id=ids, force=st.booleans())
wishes = st.builds(
    Wishes,
    pause=mostly(None, pauses),
    terminations=mostly(
        (), st.lists(orders, max_size=2, unique_by=lambda each: each.vm_id).map(tuple)
    ),
    approved_count=st.none() | st.integers(0, 8),
    protections=mostly(frozenset(), st.frozensets(ids, max_size=2)),
    resumes=mostly(0, st.just(1)),
)
methods = st.frozensets(st.sampled_from(Method))
clouds = st.builds(Cloud, idempotent=st.booleans(), horizon=st.just(seconds(120)), methods=methods)


@st.composite
def groups(draw: st.DrawFn) -> tuple[tuple[Vm, ...], dict[VmId, VmMemory], dict[VmId, Probe]]:
    """VMs with what is remembered of them and what the check says; some known, some seen only."""
    size = draw(st.integers(0, 8))
    vms = tuple(replace(draw(bodies), vm_id=VM_IDS[number]) for number in range(size))
    known = {vm_id: draw(memories_of_vms) for vm_id in draw(_known(size))}
    said = {vm.vm_id: draw(_likely(known.get(vm.vm_id, SERVING))) for vm in vms}
    return vms, known, said


def _likely(memory: VmMemory) -> st.SearchStrategy[Probe]:
    verdict = Verdict.UNHEALTHY if memory.is_unhealthy else Verdict.HEALTHY
    return mostly(Probe(verdict), probes)


def _known(size: int) -> st.SearchStrategy[list[VmId]]:
    everybody = VM_IDS[:size]
    return mostly(everybody, st.lists(ids, unique=True, max_size=size + 1))


@st.composite
def memories(draw: st.DrawFn, vms: dict[VmId, VmMemory], size: int) -> Memory:
    """What is remembered of a preset with these VMs."""
    return Memory(
        intents=draw(
            mostly(
                (),
                st.lists(intents, max_size=4, unique_by=lambda each: each.request_id).map(tuple),
            )
        ),
        vms=vms,
        backoff=draw(mostly(Backoff(), backoffs)),
        next_slot=draw(st.integers(0, 100)),
        accepted_count=draw(mostly(size, st.none() | st.integers(0, 8))),
        breaker_since=draw(mostly(None, any_moments)),
        shortages=draw(
            mostly(
                (),
                st.lists(shortages, max_size=3, unique_by=lambda each: each.placement).map(tuple),
            )
        ),
        deletions=draw(mostly((), st.lists(deletions, max_size=4).map(tuple))),
        rollout=draw(st.none() | rollouts),
        suspended_since=draw(mostly(None, any_moments)),
        resumes_seen=0,
    )


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Everything that one decision may need."""
    vms, known, said = draw(groups())
    count = max(0, len(vms) + draw(st.integers(-3, 2)))
    spec = Spec(
        name=PresetName("web"),
        count=count,
        spec_hash=SPEC,
        managed=draw(mostly(usual=True, rare=st.booleans())),
        images=draw(alternatives(images)),
        flavors=draw(alternatives(flavors)),
        zones=draw(alternatives(zones)),
        check=draw(st.none() | checks | checks),
        policy=draw(policies),
    )
    return Observation(
        now=NOW,
        spec=spec,
        fencing_token=7,
        vms=vms,
        complete=draw(mostly(usual=True, rare=st.booleans())),
        probes=said,
        memory=draw(memories(known, count)),
        wishes=draw(wishes),
        fleet=draw(
            mostly(
                Fleet(), st.builds(Fleet, failing=st.integers(0, 10), probed=st.integers(10, 40))
            )
        ),
        cloud=draw(clouds),
        removal=draw(mostly(None, removals)),
    )
