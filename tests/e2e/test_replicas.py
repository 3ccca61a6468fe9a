"""Three orchestrators share the presets: one joins, one is told to end, one is killed, one stands
still for longer than its locks live. Whatever moves, no VM is touched by it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import free_ports
from tests.e2e.several import PORTS, Several
from tests.e2e.waiting import Stopwatch, until
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase

pytestmark = pytest.mark.e2e

# So many that, as names of replicas are drawn by chance, none is without a share.
PRESETS = [f"web-{number:02}" for number in range(32)]
VMS = 3
ALL = ("orchestrator", "second", "third")
# Whoever handed over did it long before its session could end; no pause of the machine ends one.
TTL_SECONDS = 15


@pytest.fixture(scope="module")
def _three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    several = Several(tmp_path_factory.mktemp("several") / "suite", free_ports(PORTS))
    try:
        several.config["orchestrator"]["session"]["ttl"] = f"{TTL_SECONDS}s"
        for name in PRESETS:
            several.want(name, VMS)
        several.begin(*ALL)
        yield several
    finally:
        for name, daemon in several.daemons.items():
            print(f"--- {name}\n{daemon.said()[-6000:]}")  # noqa: T201  pytest shows it
        several.close()


@pytest.fixture
def three(_three: Several) -> Several:
    """Three replicas that share all presets, whatever the test before did to them."""
    _three.run_replicas(*ALL)
    _three.until_shared(*ALL)
    return _three


def test_each_replica_has_a_share_and_shows_and_answers_for_all(three: Several) -> None:
    held = three.held()
    assert sum(map(len, held.values())) == len(PRESETS)
    for name, stub in three.replicas.items():
        views = stub.ListPresets(api.ListPresetsRequest(page_size=1000), timeout=10).presets
        assert [view.name for view in views] == PRESETS, name
        info = stub.GetInfo(api.GetInfoRequest(), timeout=10)
        told = {frozenset(each.preset for each in replica.presets) for replica in info.replicas}
        assert told == {frozenset(each) for each in held.values()}
    owners = {
        stub.GetInfo(api.GetInfoRequest(), timeout=10).owner for stub in three.replicas.values()
    }
    printed = three.command("info").stdout
    assert all(owner in printed for owner in owners)


def test_a_pause_through_any_replica_reaches_the_holder(three: Several) -> None:
    [preset, *_] = three.held()["second"]
    watch = Stopwatch()
    three.replicas["third"].PausePreset(
        api.PausePresetRequest(preset=preset, actor="anna", reason="to see"), timeout=10
    )
    until(lambda: phase(three, "second", preset) == "PAUSED", "the holder has heard of it")
    watch.tell("from a pause through one replica to another one keeping it")
    three.replicas["orchestrator"].ResumePreset(
        api.ResumePresetRequest(preset=preset, actor="anna"), timeout=10
    )
    until(lambda: phase(three, "second", preset) == "STEADY", "the holder goes on")


def test_one_that_joins_takes_a_share_from_each_and_no_vm_is_touched(three: Several) -> None:
    assert three.daemons["third"].stop() == 0
    before = three.until_shared("orchestrator", "second")
    vms = three.cloud()
    three.run_replicas("third")
    after = three.until_shared(*ALL)
    for name in ("orchestrator", "second"):
        assert after[name].items() <= before[name].items()
    assert_untouched(three, vms)


def test_one_that_is_told_to_end_hands_over_frees_its_locks_and_ends_well(three: Several) -> None:
    vms, before = three.cloud(), three.held()
    began = time.monotonic()
    three.send("second", signal.SIGTERM)
    after = three.until_held("orchestrator", "third")
    took = time.monotonic() - began
    print(f"measured: from SIGTERM to its presets being held by others: {took:.2f} s")  # noqa: T201
    assert took < TTL_SECONDS
    assert three.daemons["second"].wait() == 0
    assert "" not in three.held()
    tokens = three.tokens()
    assert all(tokens[preset] > token for preset, token in before["second"].items())
    # What the others had they kept, under the same tokens.
    for name in after:
        assert before[name].items() <= after[name].items()
    assert_untouched(three, vms)


def test_what_a_killed_one_held_is_shared_by_those_that_live(three: Several) -> None:
    vms, before = three.cloud(), three.held()
    three.daemons["third"].kill()
    watch = Stopwatch()
    after = three.until_shared("orchestrator", "second")
    watch.tell(f"from kill -9 of one of three to its presets being held (ttl {TTL_SECONDS} s)")
    taken = {preset: token for each in after.values() for preset, token in each.items()}
    assert all(taken[preset] > token for preset, token in before["third"].items())
    assert_untouched(three, vms)


def test_one_that_stood_still_for_too_long_finds_out_and_touches_nothing(three: Several) -> None:
    vms, before = three.cloud(), three.held()
    moved = list(before["third"])
    lost = three.daemons["third"].said().count("session lost")
    three.send("third", signal.SIGSTOP)
    three.until_held("orchestrator", "second")
    # Now there is something to be done about each of them, and others do it.
    for preset in moved:
        three.want(preset, VMS + 1)
    grown = three.until_as_declared()
    made = {vm.marker.preset: vm.marker.fencing_token for vm_id, vm in grown.items()
            if vm_id not in vms}  # fmt: skip
    assert all(made[preset] > before["third"][preset] for preset in moved)
    three.send("third", signal.SIGCONT)
    until(
        lambda: three.daemons["third"].said().count("session lost") > lost,
        "it finds out that its session is over",
    )
    three.until_shared(*ALL)
    assert_untouched(three, grown)


def test_a_caller_who_waits_at_one_that_is_told_to_end_does_not_keep_its_presets(
    three: Several,
) -> None:
    [elsewhere, *_] = three.held()["third"]
    three.send("third", signal.SIGSTOP)
    try:
        # Waits for a holder that does not answer.
        request = api.ReconcilePresetRequest(presets=[elsewhere], wait=True)
        waiting = three.replicas["second"].ReconcilePreset.future(request, timeout=30)
        until(lambda: three.events(elsewhere, "", "RECONCILE_ASKED"), "the holder was asked")
        began = time.monotonic()
        three.send("second", signal.SIGTERM)
        until(lambda: not three.held().get("second"), "it has given up its presets")
        took = time.monotonic() - began
        print(f"measured: from SIGTERM to no lock held, with a caller waiting: {took:.2f} s")  # noqa: T201
        waiting.cancel()
    finally:
        three.send("third", signal.SIGCONT)
    assert three.daemons["second"].wait() == 0
    assert took < TTL_SECONDS


def phase(several: Several, replica: str, preset: str) -> str:
    """As this replica shows it."""
    request = api.GetPresetRequest(preset=preset)
    view = several.replicas[replica].GetPreset(request, timeout=10).preset
    return PresetPhase.Name(view.phase).removeprefix("PRESET_PHASE_")


def assert_untouched(several: Several, before: object) -> None:
    """The same VMs, none of them made or destroyed meanwhile."""
    assert several.cloud() == before
    assert several.events("", "", "VM_TERMINATING") == []
    created = several.events("", "", "VM_CREATED")
    assert len(created) == len(several.cloud())
