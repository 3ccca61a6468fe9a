from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model import (
    Fleet,
    Intent,
    IntentPhase,
    Memory,
    Method,
    Probe,
    Removal,
    RequestId,
    Verdict,
    VmId,
    VmState,
    Wishes,
)
from orchestrator.observe import Known, Seen, observe
from tests.support.given import HEALTHY, NOW, SERVING, memories, vm, vms
from tests.support.shell import WEB, FakeHealth, FakeIaas, preset
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd_kit.errors import NotFound, Refused, Unavailable
from vmshepherd_kit.testing import FakeClock

AWAY = Unavailable("a cell is away")


async def seen(
    iaas: FakeIaas,
    health: FakeHealth | None = None,
    *,
    memory: Memory | None = None,
    removal: Removal | None = None,
    former_provider: str = "",
    **spec: Any,
) -> Seen:
    declared = preset(count=3, **spec)
    known = Known(
        name=WEB,
        spec=declared.spec,
        declared=declared,
        fencing_token=7,
        memory=memory or Memory(),
        wishes=Wishes(),
        fleet=Fleet(),
        removal=removal,
        former_provider=former_provider,
    )
    return await observe(
        known,
        iaas=iaas,  # type: ignore[arg-type]
        health=health or FakeHealth(),  # type: ignore[arg-type]
        clock=iaas.clock,
    )


def cloud(names: str) -> FakeIaas:
    return FakeIaas(FakeClock(), vms={each.vm_id: each for each in vms(names)})


async def test_a_vm_that_is_not_listed_and_is_there_by_id_is_kept() -> None:
    iaas = cloud("abc")
    iaas.hidden = {VmId("b")}
    found = (await seen(iaas, memory=Memory(vms=memories("abc")))).observation
    assert {each.vm_id for each in found.vms} == {"a", "b", "c"}
    assert found.complete


async def test_a_vm_that_is_gone_by_id_is_gone() -> None:
    iaas = cloud("ac")
    found = (await seen(iaas, memory=Memory(vms=memories("abc")))).observation
    assert {each.vm_id for each in found.vms} == {"a", "c"}
    assert found.complete


async def test_a_vm_that_is_neither_listed_nor_readable_makes_the_listing_incomplete() -> None:
    iaas = cloud("ac")
    iaas.unreadable = AWAY
    found = (await seen(iaas, memory=Memory(vms=memories("abc")))).observation
    assert not found.complete
    assert "a cell is away" in found.incomplete_reason


async def test_a_vm_that_a_create_named_is_asked_for_too() -> None:
    iaas = cloud("a")
    iaas.hidden = {VmId("a")}
    intent = Intent(
        request_id=RequestId("r"),
        name="web-1",
        spec_hash="s",
        phase=IntentPhase.CONFIRMED,
        vm_id=VmId("a"),
    )
    found = (await seen(iaas, memory=Memory(intents=(intent,)))).observation
    assert [each.vm_id for each in found.vms] == ["a"]


async def test_a_listing_that_says_so_is_incomplete_and_one_that_fails_is_an_error() -> None:
    iaas = cloud("a")
    iaas.incomplete = "a cell is down"
    assert not (await seen(iaas)).observation.complete
    iaas.unlistable = AWAY
    with pytest.raises(Unavailable):
        await seen(iaas)


CHECK = preset_pb2.HealthCheck(driver="http")


async def test_only_running_vms_are_probed() -> None:
    iaas = cloud("ab")
    iaas.vms[VmId("b")] = vm("b", VmState.STOPPED)
    health = FakeHealth(probes={"a": HEALTHY, "b": HEALTHY})
    found = await seen(iaas, health, healthcheck=CHECK)
    assert found.observation.probes == {"a": HEALTHY}
    assert not found.notes


async def test_a_vm_that_is_kept_for_study_is_not_probed() -> None:
    health = FakeHealth(probes={"a": HEALTHY, "b": HEALTHY})
    kept = memories("b", replace(SERVING, kept_since=NOW))
    found = await seen(
        cloud("ab"), health, memory=Memory(vms={**memories("a"), **kept}), healthcheck=CHECK
    )
    assert found.observation.probes == {"a": HEALTHY}
    assert not found.notes


async def test_vms_of_a_removed_preset_are_listed_and_not_probed() -> None:
    removal = Removal(since=NOW)
    found = await seen(cloud("ab"), FakeHealth(error=AWAY), removal=removal, healthcheck=CHECK)
    assert len(found.observation.vms) == 2
    assert found.observation.removal == removal
    assert not found.observation.probes
    assert not found.notes


async def test_vms_of_an_unmanaged_preset_are_observed_probes_included() -> None:
    health = FakeHealth(probes={"a": HEALTHY})
    found = await seen(cloud("a"), health, unmanaged=True, healthcheck=CHECK)
    assert found.observation.probes == {"a": HEALTHY}


async def test_what_the_provider_can_do_is_part_of_what_is_seen() -> None:
    found = await seen(cloud("a"))
    assert found.observation.cloud.methods == frozenset(Method)
    assert found.observation.removal is None


async def test_without_a_check_nobody_is_probed() -> None:
    health = FakeHealth(error=AWAY)
    found = await seen(cloud("ab"), health)
    assert not found.observation.probes
    assert not found.notes


async def test_a_prober_out_of_reach_says_nothing_and_that_is_told() -> None:
    found = await seen(cloud("ab"), FakeHealth(error=AWAY), healthcheck=CHECK)
    assert not found.observation.probes
    assert [each.code for each in found.notes] == ["CHECK_FAILED"]


async def test_verdicts_that_are_missing_or_unknown_are_told() -> None:
    health = FakeHealth(probes={"a": HEALTHY, "b": Probe(Verdict.UNKNOWN, "no descriptor")})
    found = await seen(cloud("abc"), health, healthcheck=CHECK)
    [note] = found.notes
    assert note.code == "CHECK_UNKNOWN"
    assert "2 of 3" in note.message


async def test_where_the_provider_was_changed_its_vms_are_looked_for_where_they_are() -> None:
    memory = Memory(vms=memories("a"))
    found = await seen(cloud("a"), memory=memory, former_provider="old", provider="new")
    assert (found.provider, found.observation.moves_to) == ("old", "new")


@pytest.mark.parametrize(
    ("former", "memory"),
    [("", Memory(vms=memories("a"))), ("new", Memory(vms=memories("a"))), ("old", Memory())],
)
async def test_it_has_not_moved_where_nothing_is_left_or_known_of_another_provider(
    former: str, memory: Memory
) -> None:
    found = await seen(cloud("a"), memory=memory, former_provider=former, provider="new")
    assert (found.provider, found.observation.moves_to) == ("new", "")


async def test_a_former_provider_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    iaas = cloud("a")
    there = iaas.cloud

    async def known(name: str) -> Any:
        if name == "old":
            raise NotFound("no iaas service has a provider 'old'")
        return await there(name)

    monkeypatch.setattr(iaas, "cloud", known)
    with pytest.raises(Refused, match="run at provider 'old', which is not there") as caught:
        await seen(iaas, memory=Memory(vms=memories("a")), former_provider="old", provider="new")
    assert caught.value.reason == "PROVIDER_CHANGED"
