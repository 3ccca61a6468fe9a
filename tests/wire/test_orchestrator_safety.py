"""What the suite does not do when services, clouds and probers fail: over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from iaas_service.domain import Listing, VmId, VmState
from orchestrator.board import Phase
from orchestrator.clients.runtime import Wish, Write
from runtime_service.domain import FencingToken, HeldLock, LockWish, NewSession, SessionId
from runtime_service.domain import StateWrite as StoredWrite
from tests.support.suite import QUICK, Place, Replica, place, until
from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd_kit.errors import SessionLost, StaleFencingToken, Throttled, Unavailable

STORE_FULL = Throttled("the disk is full", reason="STORE_FULL")
CHECKED: dict[str, Any] = {"healthcheck": QUICK, "policy": {"startup_grace": 0}}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as found:
        yield found


async def settled(here: Place, count: int = 2, **keys: Any) -> Replica:
    here.declare(count=count, **keys)
    replica = await here.replica()
    await replica.settled()
    return replica


async def is_told(replica: Replica, code: str, name: str = "web") -> None:
    async def check() -> bool:
        return code in await replica.codes(name)

    await until(check, lambda: f"no {code}")


async def test_nothing_is_made_or_destroyed_that_the_journal_does_not_take(here: Place) -> None:
    replica = await settled(here)
    replica.gates["runtime"].refusing["AppendEvents"] = STORE_FULL
    calls = here.clouds["sim"].calls.copy()
    here.declare(count=1)
    await is_told(replica, "STORE_FULL")
    here.declare(count=4)
    await replica.becomes("web", lambda seen: seen.count == 4)
    await replica.look("web")
    done = here.clouds["sim"].calls - calls
    assert "terminate" not in done
    assert "create" not in done
    del replica.gates["runtime"].refusing["AppendEvents"]
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 4})


async def test_no_vm_is_made_whose_intent_is_not_stored(here: Place) -> None:
    replica = await settled(here)
    replica.gates["runtime"].refusing["PutStates"] = StaleFencingToken("somebody is newer")
    here.declare(count=4)
    await is_told(replica, "STALE_FENCING_TOKEN")
    await replica.look("web")
    assert here.alive() == 2


async def test_a_create_whose_answer_was_lost_is_not_repeated_by_the_channel(here: Place) -> None:
    here.declare(count=1)
    replica = await here.replica(is_blind=True)
    replica.gates["iaas"].losing["CreateVms"] = Unavailable("the connection broke")
    replica.gates["preset"].let_in()

    async def was_told() -> bool:
        # Not for long: the next look finds the VM.
        told = await here.events(preset="web")
        return ("CONDITION_SET", "OUTCOME_UNKNOWN") in {(e.kind, e.reason) for e in told}

    await until(was_told)
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 1})
    assert replica.gates["iaas"].calls["CreateVms"] == 1
    assert here.alive() == 1


async def test_other_calls_are_repeated_by_the_channel(here: Place) -> None:
    replica = await settled(here)
    gate = replica.gates["iaas"]
    before = gate.calls["TerminateVms"]
    gate.losing["TerminateVms"] = Unavailable("the connection broke")
    here.declare(count=1)

    async def is_repeated() -> bool:
        return gate.calls["TerminateVms"] >= before + 4

    await until(is_repeated)
    await replica.settled()
    # All answers were lost: who knows whether it goes? Nobody else is destroyed in its place.
    assert here.alive() == 1


@pytest.mark.parametrize("is_silent", [False, True])
async def test_nothing_is_done_on_a_listing_that_is_not_whole(
    here: Place,
    is_silent: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    replica = await settled(here, count=4)
    here.world.cell_down(silently=is_silent)
    await replica.look("web")
    assert "LISTING_INCOMPLETE" in await replica.codes()
    wish: dict[str, Any] = {
        "preset": "web",
        "vm_id": (await replica.vms())[0].vm_id,
        "actor": "anna",
    }
    await replica.ask("TerminateVm", **wish)
    here.declare(count=5)
    await replica.becomes("web", lambda seen: seen.count == 5)
    await replica.look("web")
    assert here.alive() == 4
    # The wish outlives it, even where its VM is not to be seen at present.
    assert (await replica.parts.cycles.desk.read("web")).terminations
    here.world.cell_down(down=False)

    async def is_done() -> bool:
        await replica.look("web")
        return wish["vm_id"] not in here.world.records and here.alive() == 5

    await until(is_done)


async def test_a_vm_that_a_whole_listing_lacks_is_asked_for_by_id(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = await settled(here, count=3)
    cloud, hidden = here.clouds["sim"], (await replica.vms())[1].vm_id
    listing = cloud.list

    async def lacking() -> Listing:
        found = await listing()
        return replace(found, vms=[vm for vm in found.vms if vm.vm_id != hidden])

    monkeypatch.setattr(cloud, "list", lacking)
    await replica.look("web")
    seen = await replica.preset()
    assert seen.vms_by_status == {"RUNNING": 3}
    assert here.alive() == 3
    # Taken out of the group by a person, it is not ours any more, and is replaced.
    here.world.relabel(hidden, vmshepherd_preset="mine")
    await replica.look("web")
    await replica.settled()
    assert here.alive() == 4
    assert hidden not in {vm.vm_id for vm in await replica.vms()}


@pytest.mark.parametrize("trouble", ["down", "blind", "breaks off"])
async def test_a_prober_in_trouble_condemns_nobody(here: Place, trouble: str) -> None:
    replica = await settled(here, count=3, **CHECKED)
    here.prober.sick.add((await replica.vms())[0].addresses[0])
    if trouble == "down":
        replica.gates["health"].refusing["Probe"] = Throttled("no descriptors left")
    here.prober.is_blind = trouble == "blind"
    here.prober.breaks_off = trouble == "breaks off"
    for _ in range(3):
        await replica.look("web")
    assert {"CHECK_FAILED", "CHECK_UNKNOWN"} & await replica.codes()
    assert (await replica.preset()).vms_by_status == {"RUNNING": 3}
    assert here.clouds["sim"].calls["terminate"] == 0


async def test_presets_that_are_due_together_share_their_calls(here: Place) -> None:
    names = [f"preset-{number:02}" for number in range(30)]
    for name in names:
        here.declare(name, count=2, **CHECKED)
    replica = await here.replica(is_deaf=True)
    for name in names:
        await replica.settled(name)
    gates = replica.gates
    before = {name: gate.calls.copy() for name, gate in gates.items()}
    await replica.look()
    done = {name: gate.calls - before[name] for name, gate in gates.items()}
    assert done["iaas"]["ListVms"] <= 2
    assert done["health"]["Probe"] <= 2
    assert done["runtime"]["GetStates"] <= 2
    # Nothing changed, so nothing is written.
    assert done["runtime"]["PutStates"] == 0
    assert done["runtime"]["AppendEvents"] == 0


async def test_a_provider_that_hangs_delays_no_preset_of_another(tmp_path: Path) -> None:
    async with place(tmp_path, clouds=("sim", "slow")) as here:
        here.declare("quick", count=1)
        here.declare("slow", count=1, iaas="slow")
        replica = await here.replica()
        await replica.settled("slow")
        await replica.settled("quick")
        hanging = asyncio.Event()

        async def never() -> Listing:
            await hanging.wait()
            raise Unavailable("at last")

        here.clouds["slow"].list = never  # type: ignore[method-assign]
        replica.parts.schedule.wake(["slow"])
        looked = (await replica.look("quick"))["quick"]
        assert looked.phase == view.PRESET_PHASE_STEADY
        hanging.set()
        await is_told(replica, "UNAVAILABLE", "slow")


async def test_a_check_that_hangs_delays_no_preset_with_another_check(here: Place) -> None:
    here.declare("quick", count=1, **CHECKED)
    here.declare("slow", count=1, healthcheck={"driver": "hanging"})
    replica = await here.replica()
    await replica.settled("quick")
    here.prober.hanging.add("hanging")
    replica.parts.schedule.wake(["slow"])
    assert (await replica.look("quick"))["quick"].phase == view.PRESET_PHASE_STEADY


async def test_every_state_of_a_vm_is_shown_for_what_it_is(here: Place) -> None:
    states = ["PENDING", "RUNNING", "UNHEALTHY", "NEARBY_SHUTDOWN", "AFTER_TIME_SHUTDOWN"]
    states += ["STOPPED", "DELETING", "TERMINATED", "ERROR", "UNKNOWN"]
    replica = await settled(here, count=len(states), **CHECKED)
    here.declare(count=len(states), unmanaged=True, **CHECKED)
    await replica.becomes("web", lambda seen: seen.phase == view.PRESET_PHASE_UNMANAGED)
    vms = dict(zip(states, await replica.vms(), strict=True))
    ids = {state: VmId(vm.vm_id) for state, vm in vms.items()}
    far = datetime.now(UTC) + timedelta(days=1)
    for vm_id in ids.values():
        here.grow_old(vm_id)
    for kept in (VmState.PENDING, VmState.DELETING, VmState.UNKNOWN):
        record = here.world.records[ids[kept.name]]
        record.running_from = record.gone_from = far
        here.world.change(record, replace(record.vm, state=kept))
    here.world.stop(ids["STOPPED"])
    here.world.kill(ids["TERMINATED"])
    here.world.error(ids["ERROR"])
    here.prober.sick.add(vms["UNHEALTHY"].addresses[0])
    for state, minutes in (("NEARBY_SHUTDOWN", 5), ("AFTER_TIME_SHUTDOWN", -5)):
        end = datetime.now(UTC) + timedelta(minutes=minutes)
        here.world.relabel(ids[state], iaas_timed_shutdown=end.isoformat())
    await replica.look("web")
    shown = {vm.vm_id: view.VmStatus.Name(vm.status)[10:] for vm in await replica.vms()}
    assert shown == {vm_id: state for state, vm_id in ids.items()}
    assert all(vm.status_reason for vm in await replica.vms())


async def stored(here: Place, name: str, value: bytes) -> None:
    """A state of a holder of long ago."""
    session = SessionId("of-long-ago")
    moment = timedelta(minutes=1)
    await here.store.open_session(NewSession(session_id=session, owner="old", ttl=moment))
    await here.store.try_lock(session, [LockWish(name)])
    token = here.store._locks[name].token
    write = StoredWrite(name=name, value=value, fencing_token=token, expected_version=0)
    await here.store.put_states(session, [write])
    await here.store.unlock(session, [HeldLock(name, token)])
    await here.store.close_session(session)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (record_pb2.PresetRecord(schema_version=99).SerializeToString(), "RECORD_TOO_NEW"),
        (b"\xff\xfe garbage", "RECORD_UNREADABLE"),
    ],
)
@pytest.mark.parametrize("state", ["preset/web", "operator/web"])
async def test_a_record_that_is_not_understood_leaves_its_preset_alone(
    here: Place, state: str, value: bytes, code: str
) -> None:
    await stored(here, state, value)
    here.declare(count=2)
    here.declare("other", count=1)
    replica = await here.replica()
    await is_told(replica, code)
    await replica.settled("other")
    assert here.alive() == 1
    assert here.store._states[state].value == value


async def test_a_preset_that_was_left_to_others_tells_what_keeps_its_new_owner_from_it(
    here: Place,
) -> None:
    await stored(here, "preset/web", b"\xff\xfe garbage")
    here.declare(count=2)
    replica = await here.replica(is_lonely=True)

    async def is_left() -> bool:
        shown = replica.parts.cycles.board.get("web")
        return shown is not None and shown.phase is Phase.ELSEWHERE

    await until(is_left)
    replica.gates["runtime"].let_in("ListSessions")
    await is_told(replica, "RECORD_UNREADABLE")
    assert (await replica.preset()).phase == view.PRESET_PHASE_BLOCKED


async def test_a_lost_watch_of_presets_removes_none(here: Place) -> None:
    replica = await settled(here)
    presets = replica.parts.cycles.presets
    replica.gates["preset"].refusing["WatchPresets"] = Unavailable("away")
    replica.gates["preset"].break_off("WatchPresets")

    async def is_noticed() -> bool:
        return bool(presets.error)

    await until(is_noticed)
    assert presets.names() == ["web"]
    assert (await replica.look("web"))["web"].phase == view.PRESET_PHASE_STEADY
    del replica.gates["preset"].refusing["WatchPresets"]
    here.declare(count=3)
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 3})


async def test_tokens_that_a_store_lost_are_outgrown(here: Place) -> None:
    replica = await settled(here)
    names = [f"some-preset-with-a-rather-long-name-{number:03}" for number in range(60)]
    for name in names:
        here.declare(name, count=1)
    for name in names:
        await replica.settled(name)
    ahead = (await replica.preset()).fencing_token + 10**12
    for vm_id in list(here.world.records):
        here.world.relabel(vm_id, vmshepherd_token=str(ahead))
    for _ in range(2):
        await replica.look()

    async def is_above() -> bool:
        views = (await replica.ask("ListPresets", page_size=100)).presets
        return all(
            each.fencing_token > ahead and each.phase == view.PRESET_PHASE_STEADY for each in views
        )

    await until(is_above)
    here.declare(count=3)
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 3})


async def test_a_preset_that_serves_is_steady_while_the_breaker_of_all_is_open(
    here: Place,
) -> None:
    replica = await settled(here, **CHECKED)
    here.declare("sick", count=5, **CHECKED)
    await replica.settled("sick")
    for vm in await replica.vms("sick"):
        here.prober.sick |= set(vm.addresses)
    await replica.look("sick")
    seen = (await replica.look("sick", "web"))["web"]
    assert [each.code for each in seen.conditions] == ["BREAKER_OPEN"]
    assert seen.phase == view.PRESET_PHASE_STEADY
    assert (await replica.preset("sick")).phase == view.PRESET_PHASE_BLOCKED


async def test_a_removed_preset_is_listed_with_its_vms_and_no_more_once_it_has_none(
    here: Place,
) -> None:
    replica = await settled(here)
    here.declare("empty", count=0)
    await replica.settled("empty")
    for name in ("empty", "web"):
        here.remove(name)
        await replica.becomes(name, lambda seen: seen.phase == view.PRESET_PHASE_REMOVED)
    # One that was there when they went, and one that only finds their records.
    for each in (replica, await here.replica()):
        [listed] = (await each.ask("ListPresets")).presets
        assert listed.name == "web"
        assert dict(listed.vms_by_status) == {"RUNNING": 2}


async def test_nothing_grows_with_vms_and_presets_that_come_and_go(here: Place) -> None:
    replica = await settled(here, **CHECKED)
    cycles, sizes = replica.parts.cycles, list[Sequence[int]]()
    for number in range(6):
        for vm in await replica.vms():
            here.world.vanish(vm.vm_id)
        name = f"guest-{number}"
        here.declare(name, count=1)
        await replica.settled(name)
        here.remove(name)
        await replica.becomes(name, lambda seen: seen.phase == view.PRESET_PHASE_REMOVED)
        for vm in await replica.vms(name):
            here.world.vanish(vm.vm_id)
        await replica.becomes(name, lambda seen: not seen.vms_by_status)

        async def is_over(gone: str = name) -> bool:
            return gone not in {*cycles.archive._copies, *replica.parts.schedule._turns}

        await until(is_over)
        await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 2})
        await replica.settled()
        shown = cycles.board.get("web")
        sizes.append(
            (
                len(shown.since),
                len(shown.probe_messages),
                len(cycles.archive._copies),
                len(cycles.authority.tokens()),
                len(replica.parts.schedule._turns),
                len(cycles.desk._turns),
                len(cycles.health._batches),
            )
        )
    assert sizes[0] == sizes[-1]


async def test_a_session_that_is_lost_is_replaced_and_managing_goes_on(here: Place) -> None:
    replica = await settled(here)
    authority = replica.parts.cycles.authority
    old, token = authority.session_id, authority.token("web")
    await here.store.close_session(SessionId(old))

    async def is_replaced() -> bool:
        return authority.session_id not in {"", old} and authority.token("web") is not None

    await until(is_replaced)
    assert authority.token("web") > token
    here.declare(count=3)
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 3})


async def test_a_cycle_that_runs_when_its_session_is_lost_is_cancelled(here: Place) -> None:
    replica = await settled(here)
    gate = replica.gates["iaas"]
    gate.hold("ListVms")
    before = gate.calls["ListVms"]
    replica.parts.schedule.wake(["web"])

    async def has_asked(times: int) -> bool:
        return gate.calls["ListVms"] >= before + times

    await until(lambda: has_asked(1))
    await here.store.close_session(SessionId(replica.parts.cycles.authority.session_id))
    # The first one still hangs: only because it was cancelled can there be another.
    await until(lambda: has_asked(2))
    gate.let_in()
    await replica.settled()


async def test_locks_and_writes_of_two_sessions_are_never_mixed(here: Place) -> None:
    replica = await settled(here)
    authority, client = replica.parts.cycles.authority, replica.parts.runtime
    other = SessionId("another")
    new = NewSession(session_id=other, owner="other", ttl=timedelta(minutes=1))
    await here.store.open_session(new)
    answers = await asyncio.gather(
        client.try_lock(Wish(other, "one", 0)),
        client.try_lock(Wish(authority.session_id, "two", 0)),
    )
    holders = {
        lock.name: lock.owner for lock in (await here.store.list_locks(after="", limit=9)).items
    }
    assert holders["one"] == "other"
    assert holders["two"] == authority.owner
    writes = [
        client.put_state(Write(other, "one", b"1", answers[0], 0)),
        client.put_state(Write(authority.session_id, "two", b"2", answers[1], 0)),
        client.put_state(Write("nobody", "three", b"3", FencingToken(1), 0)),
    ]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert results[:2] == [1, 1]
    assert isinstance(results[2], SessionLost)
