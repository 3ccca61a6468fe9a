"""`vmshepherd policy`: shipped timelines, what the default policy does in them, and what people
read.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner, Result

from admin.main import app
from orchestrator.backtest.reading import read
from tests.support.timelines import RECKLESS, line, standing, text
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2_grpc as api_grpc
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.runtime.v1.event_pb2 import Event
from vmshepherd_kit import errors, serve, stamps
from vmshepherd_kit.clock import SystemClock

EXAMPLES = Path(__file__).parents[3] / "examples" / "timelines"
POLICIES = EXAMPLES / "policies"
DEFAULT, PREDECESSOR = POLICIES / "default.yaml", POLICIES / "predecessor.yaml"
CARELESS, ROLLING = POLICIES / "careless.yaml", POLICIES / "rolling.yaml"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.jsonl"))


def backtest(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["policy", "backtest", *map(str, arguments)])


@cache
def replayed(name: str, proposed: Path = PREDECESSOR) -> dict[str, Any]:
    """One shipped timeline: a proposed policy against the built-in defaults."""
    ran = backtest(EXAMPLES / f"{name}.jsonl", "--preset", proposed, "-o", "json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    [only] = told["timelines"]
    return {**only, "verdict": told["verdict"], "isWorse": told["isWorse"]}


def ends(story: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["vmId"], each["reason"]) for each in story["destroyed"]]


def held(story: dict[str, Any]) -> dict[str, float]:
    return {each["code"]: each["seconds"] for each in story["heldBack"]}


def test_seven_mishaps_are_shipped() -> None:
    assert NAMES == [
        "bad_image",
        "cell_down",
        "clock_jump",
        "lost_holder",
        "prober_partition",
        "quota",
        "slow_boot",
    ]


@pytest.mark.parametrize("name", ["prober_partition", "quota"])
def test_the_defaults_written_out_are_the_built_in_ones(name: str) -> None:
    told = replayed(name, DEFAULT)
    assert told["proposed"] == told["present"]
    assert not told["isWorse"]


def test_in_a_partition_of_the_prober_nothing_is_destroyed_and_the_predecessor_destroyed_all() -> (
    None
):
    told = replayed("prober_partition")
    assert ends(told["present"]) == []
    assert told["present"]["missingSeconds"] == 0
    assert held(told["present"])["BREAKER_OPEN"] == pytest.approx(1200, abs=30)
    assert sorted(told["condemned"]) == [f"web-{n}" for n in range(1, 7)]
    assert told["proposed"]["mostMissing"] == 6
    assert told["verdict"].startswith(
        "the proposed policy would have destroyed 6 VMs that the present one spared"
    )


def test_while_a_cell_is_down_nothing_is_made_and_nothing_is_destroyed() -> None:
    told = replayed("cell_down")
    for story in (told["present"], told["proposed"]):
        assert (story["destroyed"], story["creates"]) == ([], 0)
        assert held(story)["LISTING_INCOMPLETE"] == pytest.approx(900, abs=15)


def test_slow_boots_are_waited_for_and_a_short_boot_timeout_destroys_what_boots() -> None:
    told = replayed("slow_boot", CARELESS)
    assert ends(told["present"]) == [("web-1", "DEAD"), ("web-2", "UNHEALTHY")]
    assert told["present"]["creates"] == 2
    own = [each for each in told["proposed"]["destroyed"] if each["ofItsOwn"]]
    assert len(own) > 10
    assert {each["reason"] for each in own} == {"BOOT_TIMEOUT"}
    assert told["isWorse"]


def test_without_quota_an_unhealthy_vm_stays_until_there_is_room_for_another() -> None:
    told = replayed("quota")
    present = told["present"]
    assert ends(present) == [("web-1", "DEAD"), ("web-2", "UNHEALTHY")]
    # The quota is back after 40 minutes.
    assert present["destroyed"][1]["seconds"] > 2400
    assert told["proposed"]["destroyed"][1]["seconds"] < 700
    assert set(present["failedCreates"]) == {"QUOTA_EXCEEDED"}
    assert held(present)["BACKOFF"] > 1500


def test_a_bad_image_costs_no_vm_that_serves() -> None:
    told = replayed("bad_image")
    recorded = [each for each in told["present"]["destroyed"] if not each["ofItsOwn"]]
    assert [each["vmId"] for each in recorded] == ["web-1"]
    # It had failed by itself, and goes when the image is good again.
    assert recorded[0]["seconds"] > 4200
    assert len(told["present"]["destroyed"]) < len(told["proposed"]["destroyed"])


def test_a_rollout_of_a_bad_image_stops_before_a_second_vm_is_touched() -> None:
    proposed = replayed("bad_image", ROLLING)["proposed"]
    assert held(proposed)["ROLLOUT_STOPPED"] > 3000
    assert [each["vmId"] for each in proposed["destroyed"] if not each["ofItsOwn"]] == ["web-1"]


def test_a_clock_that_jumps_condemns_nobody_who_serves() -> None:
    told = replayed("clock_jump")
    assert ends(told["present"]) == [("web-1", "UNHEALTHY"), ("web-2", "UNHEALTHY")]
    for end, hung_at in zip(told["present"]["destroyed"], (600, 2400), strict=True):
        assert end["seconds"] > hung_at + 60, "its replacement serves first"


def test_lost_holders_lose_time_and_nothing_else() -> None:
    told = replayed("lost_holder")
    assert sorted(ends(told["present"])) == [("web-1", "UNHEALTHY"), ("web-2", "DEAD")]
    assert told["present"]["creates"] == 2


def test_people_read_both_policies_side_by_side_and_the_verdict_last() -> None:
    ran = backtest(EXAMPLES / "prober_partition.jsonl", "--preset", PREDECESSOR)
    assert ran.exit_code == 0
    lines = ran.stdout.splitlines()
    assert any("preset web, 1h from 2030-01-01 12:00 UTC" in line for line in lines)
    [numbers] = [line.split() for line in lines if line.startswith("VMs destroyed")]
    assert numbers[2:4] == ["16", "0"]
    [refusal] = [line for line in lines if line.startswith("held back: breaker open")]
    assert "20m" in refusal
    assert "policy.breaker_count" in refusal
    first = lines[lines.index("DESTROYED") + 2].split()
    assert first[:4] == ["10m", "proposed", "web-1", "unhealthy"]
    assert "no connection within 1 s" in ran.stdout
    assert lines[-1].startswith("the proposed policy would have destroyed 6 VMs")


def test_what_both_destroy_alike_is_told_once() -> None:
    ran = backtest(EXAMPLES / "quota.jsonl", "--preset", DEFAULT)
    rows = [line.split() for line in ran.stdout.splitlines() if " web-1 " in line]
    assert [row[:4] for row in rows] == [["10m", "10s", "both", "web-1"]]


def test_several_timelines_are_replayed_to_one_verdict() -> None:
    ran = backtest(*(EXAMPLES / f"{name}.jsonl" for name in NAMES[1:3]), "--preset", DEFAULT)
    assert ran.stdout.count("preset web, ") == 2
    assert ran.stdout.count("would have destroyed") == 1


def test_a_pipeline_is_stopped_only_when_it_asks_for_it() -> None:
    worse = [EXAMPLES / "prober_partition.jsonl", "--preset", PREDECESSOR]
    assert backtest(*worse).exit_code == 0
    assert backtest(*worse, "--fail-if-more").exit_code == 1
    assert backtest(worse[0], "--preset", DEFAULT, "--fail-if-more").exit_code == 0


def test_the_present_policy_may_be_that_of_another_file() -> None:
    timeline = EXAMPLES / "prober_partition.jsonl"
    ran = backtest(timeline, "--preset", PREDECESSOR, "--against", PREDECESSOR, "--fail-if-more")
    assert ran.exit_code == 0
    healed = backtest(timeline, "--preset", DEFAULT, "--against", PREDECESSOR)
    assert "would have spared 6 VMs that the present one destroyed" in healed.stdout


def test_every_key_of_a_policy_reaches_the_replay(tmp_path: Path) -> None:
    night = tmp_path / "night.jsonl"
    blind = line(100, "verdict", vm="all", verdict="UNHEALTHY")
    night.write_text(text(*standing(6), line(0, "others", failing=0, probed=200), blind, count=6))
    written = {key: str(value).partition(":")[0] for key, value in RECKLESS.items()}
    written["startup_grace"] = "0s"
    keys = "".join(f"  {key}: {value}\n" for key, value in written.items())
    proposed = tmp_path / "web.yaml"
    check = "healthcheck: {driver: http, fall: 1, rise: 1, min_failing_time: 0s}\n"
    proposed.write_text(f"count: 6\n{check}policy:\n{keys}")
    assert (
        "destroyed 6 VMs that the present one spared"
        in backtest(night, "--preset", proposed).stdout
    )
    guarded = keys.replace("  breaker_count: 1000\n  breaker_percent: 100\n", "")
    proposed.write_text(f"count: 6\n{check}policy:\n{guarded}")
    assert backtest(night, "--preset", proposed, "--fail-if-more").exit_code == 0


def test_how_often_a_preset_is_looked_at_is_that_of_its_file(tmp_path: Path) -> None:
    proposed = tmp_path / "web.yaml"
    proposed.write_text(DEFAULT.read_text() + "manage_interval: 5m\n")
    told = replayed("lost_holder", proposed)
    assert told["proposed"]["destroyed"][0]["seconds"] > 890


def test_a_configuration_brings_its_defaults(tmp_path: Path) -> None:
    config = tmp_path / "vmshepherd.yaml"
    config.write_text("preset: {defaults: {policy: {boot_timeout: 2m}}}\n")
    arguments = [EXAMPLES / "slow_boot.jsonl", "--preset", DEFAULT]
    assert backtest(*arguments, "--fail-if-more").exit_code == 0
    assert backtest(*arguments, "--fail-if-more", "-c", config).exit_code == 1


def test_a_timeline_of_another_preset_or_count_is_noted(tmp_path: Path) -> None:
    proposed, night = tmp_path / "cache.yaml", tmp_path / "night.jsonl"
    night.write_text(text(*standing(3), line(9, "preset", count=4), length=60))
    proposed.write_text("count: 3\n")
    ran = backtest(night, "--preset", proposed)
    assert f"note: {proposed} declares 'cache', and {night} is of 'web'" in ran.stderr
    proposed.write_text("name: web\ncount: 5\n")
    ran = backtest(night, "--preset", proposed)
    assert f"note: {proposed} says count 5, and {night} never has it" in ran.stderr
    for count in (3, 4):
        proposed.write_text(f"name: web\ncount: {count}\n")
        assert backtest(night, "--preset", proposed).stderr == ""


@pytest.mark.parametrize("name", ["timeline", "preset", "against"])
def test_a_file_that_cannot_be_read_is_one_sentence_and_wrong_usage(
    name: str, tmp_path: Path
) -> None:
    files = {"timeline": EXAMPLES / "quota.jsonl", "preset": DEFAULT, "against": DEFAULT}
    files[name] = tmp_path / "absent"
    ran = backtest(files["timeline"], "--preset", files["preset"], "--against", files["against"])
    assert ran.exit_code == 2
    assert ran.stderr == f"{tmp_path / 'absent'}: cannot be read: No such file or directory\n"


def test_a_timeline_that_is_none_is_refused_by_file_line_and_field(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(text(line(3, "verdict", vm="web-1", verdict="ILL\x1b[2J")))
    ran = backtest(bad, "--preset", DEFAULT)
    assert ran.exit_code == 2
    assert ran.stderr.startswith(f"{bad}:2: verdict: must be one of HEALTHY")
    assert "\x1b" not in ran.stderr
    bad.write_bytes(b"\xff")
    assert backtest(bad, "--preset", DEFAULT).stderr == f"{bad}: is not a text in UTF-8\n"


def test_a_preset_file_that_is_wrong_is_refused_with_its_findings(tmp_path: Path) -> None:
    proposed = tmp_path / "web.yaml"
    proposed.write_text("count: 3\npolicy: {max_surg: 2}\n")
    ran = backtest(EXAMPLES / "quota.jsonl", "--preset", proposed)
    assert ran.exit_code == 2
    assert f"{proposed}:2: policy.max_surg: unknown key; did you mean 'max_surge'?" in ran.stderr


def test_words_of_a_timeline_cannot_drive_the_terminal(tmp_path: Path) -> None:
    night = tmp_path / "night.jsonl"
    hung = line(9, "verdict", vm="web-1", verdict="UNHEALTHY", message="\x1b[2J gone")
    night.write_text(text(*standing(3), hung, note="\x1b]0;x\x07"))
    ran = backtest(night, "--preset", DEFAULT)
    assert "gone" in ran.stdout
    assert "\x1b" not in ran.stdout


# --- policy record ---


def before(**length: float) -> Timestamp:
    """So long before the moment at which it is asked for."""
    return stamps.to_timestamp(SystemClock().wall() - timedelta(**length))


def told(minutes_ago: float, kind: str, vm: str, reason: str = "", **evidence: str) -> Event:
    return Event(
        time=before(minutes=minutes_ago),
        preset="web",
        vm_id=vm,
        kind=kind,
        reason=reason,
        evidence=evidence,
    )


class FakeOrchestrator(api_grpc.OrchestratorServiceServicer):
    """One preset with a past."""

    async def GetPreset(self, request: Any, context: Any) -> api.GetPresetResponse:
        if request.preset != "web":
            raise errors.NotFound(f"there is no preset {request.preset!r}; the nearest is 'web'")
        return api.GetPresetResponse(
            preset=view.PresetView(name="web", count=2, spec_hash="s1"),
            vms=[
                view.VmView(vm_id="a", create_time=before(hours=9)),
            ],
        )

    async def ListEvents(self, request: Any, context: Any) -> api.ListEventsResponse:
        assert request.filter.preset == "web"
        newest_first = [
            told(5, "VM_GONE", "b"),
            told(10, "VM_PROBE", "a", "UNHEALTHY"),
            told(90, "VM_SEEN", "b", "RUNNING"),
            told(90, "VM_SEEN", "a", "RUNNING", state="RUNNING"),
        ]
        start = int(request.page_token or 0)
        return api.ListEventsResponse(
            events=newest_first[start : start + 2], next_page_token="" if start else "2"
        )


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
async def address() -> AsyncIterator[str]:
    mount = serve.Mount(
        add=api_grpc.add_OrchestratorServiceServicer_to_server,
        servicer=FakeOrchestrator(),  # type: ignore[abstract]
        descriptor=api.DESCRIPTOR.services_by_name["OrchestratorService"],
    )
    async with serve.running([mount], serve.Listen(address="127.0.0.1:0")) as server:
        yield server.address


async def record(address: str, *arguments: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "admin", "policy", "record", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "VMSHEPHERD_ADDRESS": address},
    )
    out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def test_a_fleet_records_its_own_past_and_replays_it(address: str, tmp_path: Path) -> None:
    ran = await record(address, "web", "--since", "1h")
    assert ran.code == 0, ran.err
    timeline = read(ran.out, file="web.jsonl")
    assert (timeline.head.preset, timeline.head.count) == ("web", 2)
    assert timeline.head.length == pytest.approx(3600, abs=30)
    first, second, hung, gone = timeline.records
    assert [each.at for each in (first, second)] == [0, 0]
    assert first.created == pytest.approx(-8 * 3600, abs=60)  # type: ignore[union-attr]
    assert hung.at == pytest.approx(3000, abs=30)
    assert gone.at == pytest.approx(3300, abs=30)
    assert "note: events of an older version tell no state of the cloud" in ran.err
    file = tmp_path / "web.jsonl"
    file.write_text(ran.out)
    replay = await asyncio.to_thread(backtest, file, "--preset", DEFAULT)
    assert "VMs destroyed" in replay.stdout


async def test_a_preset_that_there_is_none_of_is_exit_code_3(address: str) -> None:
    ran = await record(address, "wbe")
    assert (ran.code, ran.out) == (3, "")
    assert "the nearest is 'web'" in ran.err


async def test_a_time_that_is_none_is_wrong_usage(address: str) -> None:
    ran = await record(address, "web", "--since", "yesterday")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("--since 'yesterday': must be")
