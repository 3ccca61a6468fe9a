"""The `vmshepherd` command as scripts and people meet it: a process that asks a real server."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2_grpc as api_grpc
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.preset.v1.preset_pb2 import Finding
from vmshepherd.runtime.v1.event_pb2 import Event
from vmshepherd_kit import errors, serve, stamps, status
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import ShepherdError

NOW = SystemClock().wall()


class FakeOrchestrator(api_grpc.OrchestratorServiceServicer):
    """Answers from lists, and remembers what it was asked."""

    def __init__(self) -> None:
        self.presets = [
            view.PresetView(
                name="cache",
                count=2,
                phase=view.PRESET_PHASE_BLOCKED,
                vms_by_status={"RUNNING": 1, "UNHEALTHY": 1},
                conditions=[
                    view.Condition(code="BREAKER_OPEN", message="3 of 4 fail: \x1b[2Jwait")
                ],
            ),
            view.PresetView(
                name="web",
                count=3,
                phase=view.PRESET_PHASE_STEADY,
                vms_by_status={"RUNNING": 3},
                findings=[
                    Finding(file="web.yaml", line=3, key="count", message="must be a number")
                ],
            ),
        ]
        self.vms = [
            view.VmView(
                vm_id=f"vm-{n}",
                preset="web",
                status=view.VM_STATUS_RUNNING,
                addresses=[f"127.1.0.{n}"],
                create_time=stamps.to_timestamp(NOW - timedelta(hours=2)),
            )
            for n in (1, 2, 3)
        ]
        self.events = [
            Event(
                event_id=f"e{n}", sequence=n, preset="web", kind="VM_CREATED", message=f"made {n}"
            )
            for n in range(1, 6)
        ]
        self.steps: list[view.PlanStep] = []
        self.was_paused = True
        self.was_protected = False
        self.no_plan: ShepherdError | None = None
        self.asked: list[Any] = []
        self.watches = 0
        self.watched = asyncio.Event()
        self.failure: ShepherdError | None = None

    def _ask(self, request: Any) -> None:
        self.asked.append(request)
        if self.failure:
            raise self.failure

    def _known(self, preset: str) -> None:
        if preset not in {p.name for p in self.presets}:
            raise errors.NotFound(f"there is no preset {preset!r}; the nearest is 'web'")

    async def ListPresets(self, request: Any, context: Any) -> api.ListPresetsResponse:
        self._ask(request)
        start = int(request.page_token or 0)
        return api.ListPresetsResponse(
            presets=self.presets[start : start + 1],
            next_page_token=str(start + 1) if start + 1 < len(self.presets) else "",
            source_errors=[view.Condition(code="SOURCE_ERROR", message="git: unreachable")],
        )

    async def GetPreset(self, request: Any, context: Any) -> api.GetPresetResponse:
        self._ask(request)
        self._known(request.preset)
        preset = next(p for p in self.presets if p.name == request.preset)
        return api.GetPresetResponse(preset=preset, vms=self.vms)

    async def PlanPreset(self, request: Any, context: Any) -> api.PlanPresetResponse:
        self._ask(request)
        self._known(request.preset)
        if self.no_plan:
            raise self.no_plan
        refusal = view.Condition(
            code="BUDGET_SPENT", message="one at a time", clause="policy.max_deletions_per_cycle"
        )
        look = stamps.to_duration(timedelta(seconds=10))
        plan = view.Plan(steps=self.steps, refusals=[refusal], next_look=look)
        return api.PlanPresetResponse(plan=plan)

    async def ReconcilePreset(self, request: Any, context: Any) -> api.ReconcilePresetResponse:
        self._ask(request)
        known = {p.name for p in self.presets}
        missing = status.to_proto(errors.NotFound("there is no such preset"))
        return api.ReconcilePresetResponse(
            results=[
                api.ReconcileResult(preset=name, status=None if name in known else missing)
                for name in request.presets or sorted(known)
            ]
        )

    async def PausePreset(self, request: Any, context: Any) -> api.PausePresetResponse:
        self._ask(request)
        pause = view.Pause(processes=request.processes, actor=request.actor, reason=request.reason)
        return api.PausePresetResponse(pause=pause)

    async def ResumePreset(self, request: Any, context: Any) -> api.ResumePresetResponse:
        self._ask(request)
        return api.ResumePresetResponse(was_paused=self.was_paused)

    async def ListVms(self, request: Any, context: Any) -> api.ListVmsResponse:
        self._ask(request)
        return api.ListVmsResponse(vms=self.vms)

    async def GetVm(self, request: Any, context: Any) -> api.GetVmResponse:
        self._ask(request)
        for vm in self.vms:
            if vm.vm_id == request.vm_id:
                return api.GetVmResponse(vm=vm)
        raise errors.NotFound(f"there is no VM {request.vm_id!r}")

    async def TerminateVm(self, request: Any, context: Any) -> api.TerminateVmResponse:
        self._ask(request)
        return api.TerminateVmResponse(existed=True)

    async def ProtectVm(self, request: Any, context: Any) -> api.ProtectVmResponse:
        self._ask(request)
        return api.ProtectVmResponse(was_protected=self.was_protected)

    async def ExplainVm(self, request: Any, context: Any) -> api.ExplainVmResponse:
        self._ask(request)
        return api.ExplainVmResponse(
            step=view.PlanStep(
                action=view.STEP_ACTION_TERMINATE,
                reason="UNHEALTHY",
                evidence="refused 3 times",
                clause="healthcheck.fall",
            ),
            conditions=[view.Condition(message="one at a time", clause="policy.max_unavailable")],
            vm=next((vm for vm in self.vms if vm.vm_id == request.vm_id), None),
            events=self.events[:1],
        )

    async def ListEvents(self, request: Any, context: Any) -> api.ListEventsResponse:
        self._ask(request)
        return api.ListEventsResponse(events=self.events[::-1][: request.page_size])

    async def WatchEvents(
        self, request: Any, context: Any
    ) -> AsyncIterator[api.WatchEventsResponse]:
        self.watches += 1
        self.watched.set()
        after = request.after_sequence
        later = [event for event in self.events if event.sequence > after][:1]
        yield api.WatchEventsResponse(events=later, sequence=after + len(later))
        if after < 7:
            raise errors.Unavailable("drains")
        await asyncio.Event().wait()

    async def GetInfo(self, request: Any, context: Any) -> api.GetInfoResponse:
        self._ask(request)
        return api.GetInfoResponse(
            version="2.0.0",
            suite_id="examples",
            presets_by_phase={"STEADY": 1},
            config_error="suite.yaml:3: nonsense",
            replicas=[
                api.Replica(
                    owner="here-1",
                    labels={"host": "here", "probed": "7"},
                    presets=[
                        api.HeldPreset(preset="web", fencing_token=41, age=Duration(seconds=90))
                    ],
                    share=70,
                )
            ],
            backends=[api.Backend(name="iaas", address="127.0.0.1:1", error="refused")],
        )


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Awaitable[Ran]]


@pytest.fixture
def orchestrator() -> FakeOrchestrator:
    return FakeOrchestrator()


@pytest.fixture
async def address(orchestrator: FakeOrchestrator) -> AsyncIterator[str]:
    mount = serve.Mount(
        add=api_grpc.add_OrchestratorServiceServicer_to_server,
        servicer=orchestrator,
        descriptor=api.DESCRIPTOR.services_by_name["OrchestratorService"],
    )
    async with serve.running([mount], serve.Listen(address="127.0.0.1:0")) as server:
        yield server.address


@pytest.fixture
def vmshepherd(address: str) -> Command:
    return commands_to(address)


def commands_to(address: str) -> Command:
    async def run(*arguments: str) -> Ran:
        process = await started(*arguments, address=address)
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    return run


async def started(*arguments: str, address: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "VMSHEPHERD_ADDRESS": address, "COLUMNS": "80"}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "admin",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )


async def test_presets_are_listed_over_all_pages_with_the_faults_of_their_files(
    vmshepherd: Command,
) -> None:
    ran = await vmshepherd("preset", "list")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == ["PRESET", "PHASE", "DECLARED", "RUNNING", "OTHERS", "WHY"]
    assert lines[1].split()[:5] == ["cache", "blocked", "2", "1", "1"]
    assert lines[2].split()[:4] == ["web", "steady", "3", "3"]
    assert "web: web.yaml:3: count: must be a number" in lines
    assert lines.count("git: unreachable") == 1


async def test_words_from_outside_cannot_drive_the_terminal(vmshepherd: Command) -> None:
    ran = await vmshepherd("preset", "list")
    assert "3 of 4 fail" in ran.out
    assert "\x1b" not in ran.out


async def test_lines_are_not_cut_where_there_is_no_terminal(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    long = "the cloud says " + "very " * 60 + "much"
    orchestrator.presets[0].conditions[0].message = long
    assert long in (await vmshepherd("preset", "list")).out


async def test_json_is_one_message_of_the_api_whatever_the_pages(vmshepherd: Command) -> None:
    told = (await vmshepherd("preset", "list", "--output", "json")).json
    assert [preset["name"] for preset in told["presets"]] == ["cache", "web"]
    assert told["presets"][1]["vmsByStatus"] == {"RUNNING": 3}
    assert told["nextPageToken"] == ""
    assert len(told["sourceErrors"]) == 1


async def test_options_may_stand_before_the_command_too(vmshepherd: Command) -> None:
    assert (await vmshepherd("--output", "json", "vm", "list")).json["vms"][0]["vmId"] == "vm-1"


async def test_an_empty_list_is_still_a_list_in_json(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    orchestrator.vms.clear()
    assert (await vmshepherd("vm", "list", "-o", "json")).json["vms"] == []
    ran = await vmshepherd("vm", "list")
    assert (ran.code, ran.out, ran.err) == (0, "", "there is no VM\n")


async def test_one_preset_is_shown_with_its_vms(vmshepherd: Command) -> None:
    ran = await vmshepherd("preset", "show", "web")
    assert "declared  3" in ran.out
    assert "vm-3" in ran.out
    told = (await vmshepherd("preset", "show", "web", "-o", "json")).json
    assert told["preset"]["name"] == "web"
    assert len(told["vms"]) == 3


async def test_what_does_not_exist_is_one_sentence_and_exit_code_3(vmshepherd: Command) -> None:
    ran = await vmshepherd("preset", "show", "wbe")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "there is no preset 'wbe'; the nearest is 'web'\n"
    assert (await vmshepherd("vm", "show", "vm-9")).code == 3


async def test_nobody_at_the_address_is_exit_code_4_and_how_to_start_the_suite() -> None:
    ran = await commands_to("127.0.0.1:9")("preset", "list")
    assert ran.code == 4
    assert ran.err.startswith("nobody answers at 127.0.0.1:9: start the suite with `vmshepherd up`")
    assert len(ran.err.splitlines()) == 1


async def test_a_service_that_is_away_is_told_in_the_servers_own_words(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    orchestrator.failure = errors.Unavailable("the store is away")
    ran = await vmshepherd("info")
    assert (ran.code, ran.err) == (4, "the store is away\n")


async def test_a_refusal_is_exit_code_1(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    orchestrator.failure = errors.Refused("it is protected", reason="PROTECTED")
    ran = await vmshepherd("vm", "terminate", "vm-1", "--preset", "web", "--yes")
    assert (ran.code, ran.err) == (1, "it is protected\n")


async def test_wrong_usage_is_exit_code_2(vmshepherd: Command) -> None:
    assert (await vmshepherd("preset", "shwo")).code == 2
    assert (await vmshepherd("vm", "list", "--status", "ill")).code == 2
    assert (await vmshepherd("preset", "pause", "web", "--for", "soon")).code == 2
    assert (await vmshepherd("preset", "reconcile", "--approve-count")).code == 2


async def test_a_plan_tells_by_its_exit_code_whether_there_are_steps(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    assert (await vmshepherd("preset", "plan", "web", "--detailed-exitcode")).code == 0
    orchestrator.steps.append(
        view.PlanStep(
            action=view.STEP_ACTION_CREATE,
            reason="MISSING",
            evidence="2 of 3 there",
            clause="count",
        )
    )
    ran = await vmshepherd("preset", "plan", "web", "--detailed-exitcode")
    assert ran.code == 10
    assert "create  (new)  missing  2 of 3 there [count]" in ran.out
    assert "not more: one at a time [policy.max_deletions_per_cycle]" in ran.out
    assert "next look: in 10s" in ran.out
    assert (await vmshepherd("preset", "plan", "web")).code == 0


async def test_a_pause_names_what_who_why_and_for_how_long(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    ran = await vmshepherd(
        *("preset", "pause", "web", "--process", "health", "--process", "scale-in"),
        *("--reason", "a test", "--for", "1h30m"),
    )
    assert ran.code == 0
    [asked] = orchestrator.asked
    assert list(asked.processes) == [view.PROCESS_HEALTH, view.PROCESS_SCALE_IN]
    assert asked.actor
    assert asked.reason == "a test"
    assert asked.duration.ToTimedelta() == timedelta(minutes=90)
    assert ran.out.startswith("web is paused: health, scale in by ")


async def test_every_step_of_a_plan_has_its_word(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    orchestrator.steps = [
        view.PlanStep(action=action, vm_id=f"vm-{action}", reason="UNHEALTHY", evidence="refused")
        for action in view.StepAction.values()[1:]
    ]
    lines = (await vmshepherd("preset", "plan", "web")).out.splitlines()
    assert lines[0].split() == ["STEP", "VM", "REASON", "EVIDENCE"]
    words = [line.split()[0] for line in lines[1:6]]
    assert words == ["create", "terminate", "reboot", "rebuild", "keep"]
    told = (await vmshepherd("preset", "plan", "web", "-o", "json")).json
    assert [step["action"] for step in told["plan"]["steps"]][2] == "STEP_ACTION_REBOOT"
    assert told["plan"]["refusals"][0]["clause"] == "policy.max_deletions_per_cycle"


async def test_a_preset_is_explained_by_its_conditions_its_next_cycle_and_what_led_there(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    [condition] = orchestrator.presets[0].conditions
    condition.clause = "policy.breaker_count"
    condition.since_time.CopyFrom(stamps.to_timestamp(SystemClock().wall() - timedelta(minutes=5)))
    ran = await vmshepherd("preset", "explain", "cache")
    assert ran.code == 0
    heads = [line for line in ran.out.splitlines() if line.isupper() and " " not in line]
    assert heads == ["WHY", "NEXT", "EVENTS"]
    assert "phase     blocked" in ran.out
    [told] = [line for line in ran.out.splitlines() if line.startswith("breaker open")]
    assert told.split()[2].startswith("5m")
    assert told.endswith("3 of 4 fail:  [2Jwait [policy.breaker_count]")
    assert "not more: one at a time [policy.max_deletions_per_cycle]" in ran.out
    assert "made 5" in ran.out
    assert "\x1b" not in ran.out
    asked = next(each for each in orchestrator.asked if isinstance(each, api.ListEventsRequest))
    assert asked.filter.preset == "cache"
    assert {"VM_TERMINATING", "CONDITION_SET", "PRESET_PAUSED"} <= set(asked.filter.kinds)
    # What is merely seen would hide what was decided.
    assert not {"VM_SEEN", "VM_STATUS", "VM_PROBE"} & set(asked.filter.kinds)


async def test_a_preset_whose_cloud_is_away_is_explained_all_the_same(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    orchestrator.no_plan = errors.Unavailable("the cloud \x1b[2J is away")
    ran = await vmshepherd("preset", "explain", "cache")
    assert ran.code == 0
    assert "what comes next cannot be told: the cloud  [2J is away" in ran.out
    assert "made 5" in ran.out
    told = (await vmshepherd("preset", "explain", "cache", "-o", "json")).json
    assert told["planError"] == "the cloud \x1b[2J is away"
    assert told["preset"]["name"] == "cache"
    assert len(told["events"]["events"]) == 5


async def test_a_steady_preset_is_explained_as_such(vmshepherd: Command) -> None:
    ran = await vmshepherd("preset", "explain", "web")
    said = ran.out.splitlines()
    assert said[said.index("WHY") + 1] == "nothing is refused, postponed or waited for"
    assert said[said.index("NEXT") + 1] == "nothing to do"
    assert said.count("not more: one at a time [policy.max_deletions_per_cycle]") == 1
    assert ran.err == ""


async def test_what_stands_among_the_conditions_is_not_told_twice(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    orchestrator.presets[1].conditions.add(code="BUDGET_SPENT", message="one at a time")
    ran = await vmshepherd("preset", "explain", "web")
    assert ran.out.count("one at a time") == 1


async def test_what_cannot_be_explained_names_the_nearest_known(vmshepherd: Command) -> None:
    for command in ("explain", "plan"):
        ran = await vmshepherd("preset", command, "wbe")
        assert (ran.code, ran.out) == (3, "")
        assert "the nearest is 'web'" in ran.err


async def test_a_resume_says_what_became_of_it(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    assert (await vmshepherd("preset", "resume", "web")).out == "web is managed again\n"
    orchestrator.was_paused = False
    said = "web was not paused; what it had suspended by itself is tried again\n"
    assert (await vmshepherd("preset", "resume", "web")).out == said


async def test_a_vm_is_protected_for_a_reason_and_no_more_when_that_is_over(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    ran = await vmshepherd("vm", "protect", "vm-2", "--reason", "a crash to look into")
    assert ran.out == "vm-2 is protected: never destroyed, rebooted or rebuilt by us\n"
    asked = orchestrator.asked[-1]
    assert (asked.preset, asked.vm_id, asked.protected) == ("web", "vm-2", True)
    assert asked.reason == "a crash to look into"
    assert asked.actor
    orchestrator.was_protected = True
    assert "still is" in (await vmshepherd("vm", "protect", "vm-2")).out
    ran = await vmshepherd("vm", "unprotect", "vm-2", "--preset", "cache")
    assert ran.out.startswith("vm-2 is protected no more")
    assert (orchestrator.asked[-1].preset, orchestrator.asked[-1].protected) == ("cache", False)
    told = (await vmshepherd("vm", "unprotect", "vm-2", "-o", "json")).json
    assert told == {"wasProtected": True}
    assert (await vmshepherd("vm", "protect", "vm-9")).code == 3


async def test_a_vm_is_explained_with_why_it_leaves_and_until_when_it_is_kept(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    vm = orchestrator.vms[0]
    vm.leaving_reason = "MAX_LIFETIME"
    vm.protected = vm.outdated = True
    vm.kept_until_time.CopyFrom(stamps.to_timestamp(NOW + timedelta(hours=3)))
    ran = await vmshepherd("vm", "explain", "vm-1")
    assert "leaves      to be replaced: max lifetime" in ran.out
    assert f"kept until  {(NOW + timedelta(hours=3)).astimezone():%Y-%m-%d %H:%M:%S}" in ran.out
    assert "protected   yes: never destroyed, rebooted or rebuilt by us" in ran.out
    assert "terminate, unhealthy: refused 3 times [healthcheck.fall]" in ran.out
    assert "why not more: one at a time [policy.max_unavailable]" in ran.out


async def test_a_reconcile_fails_when_one_of_the_presets_does_not_exist(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    ran = await vmshepherd("preset", "reconcile", "web", "wbe", "--wait", "--approve-count")
    assert ran.code == 3
    assert orchestrator.asked[0].wait
    assert orchestrator.asked[0].approve_count
    assert (await vmshepherd("preset", "reconcile")).code == 0


async def test_vms_are_chosen_by_preset_and_status(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    ran = await vmshepherd("vm", "list", "--preset", "web", "--status", "nearby-shutdown")
    assert ran.code == 0
    [asked] = orchestrator.asked
    assert asked.preset == "web"
    assert list(asked.statuses) == [view.VM_STATUS_NEARBY_SHUTDOWN]


async def test_a_vm_is_not_terminated_without_a_yes(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    ran = await vmshepherd("vm", "terminate", "vm-1")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert not [asked for asked in orchestrator.asked if isinstance(asked, api.TerminateVmRequest)]


async def test_a_termination_finds_the_preset_by_itself_and_names_the_person(
    vmshepherd: Command, orchestrator: FakeOrchestrator
) -> None:
    ran = await vmshepherd("vm", "terminate", "vm-2", "--yes", "--force", "--reason", "ill")
    assert ran.code == 0
    asked = orchestrator.asked[-1]
    assert (asked.preset, asked.vm_id, asked.reason, asked.force) == ("web", "vm-2", "ill", True)
    assert asked.actor


async def test_a_vm_that_is_gone_is_explained_from_its_events(vmshepherd: Command) -> None:
    ran = await vmshepherd("vm", "explain", "vm-0")
    assert "vm-0 is not seen any more" in ran.out
    assert "terminate, unhealthy: refused 3 times [healthcheck.fall]" in ran.out
    assert "made 1" in ran.out


async def test_events_come_with_the_newest_at_the_bottom(vmshepherd: Command) -> None:
    ran = await vmshepherd("events", "--limit", "2")
    assert [line.split()[-1] for line in ran.out.splitlines()[1:]] == ["4", "5"]
    told = (await vmshepherd("events", "--limit", "2", "-o", "json")).json
    assert [event["sequence"] for event in told["events"]] == ["4", "5"]


async def test_followed_events_go_on_after_a_lost_stream_without_gap_or_repeat(
    address: str, orchestrator: FakeOrchestrator
) -> None:
    process = await started("events", "-f", "-o", "json", "--limit", "1", address=address)
    assert process.stdout
    first = json.loads(await process.stdout.readline())
    orchestrator.events += [Event(event_id=f"e{n}", sequence=n, kind="X") for n in (6, 7)]
    rest = [json.loads(await process.stdout.readline()) for _ in (1, 2)]
    assert [event["sequence"] for event in (first, *rest)] == ["5", "6", "7"]
    process.terminate()
    await process.communicate()
    assert orchestrator.watches >= 2


async def test_an_interrupt_ends_following_without_a_word(address: str) -> None:
    process = await started("events", "-f", "--limit", "1", address=address)
    assert process.stdout
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


def newest_thread(pid: int) -> int:
    return max(int(each.name) for each in Path(f"/proc/{pid}/task").iterdir())


async def test_an_interrupt_that_meets_another_thread_ends_following_all_the_same(
    orchestrator: FakeOrchestrator, address: str
) -> None:
    # Like one that comes just before the loop begins to wait.
    orchestrator.events += [Event(event_id=f"e{n}", sequence=n, kind="X") for n in (6, 7)]
    process = await started("events", "-f", "-o", "json", "--limit", "1", address=address)
    assert process.stdout
    await process.stdout.readline()
    # After the newest event nothing comes any more.
    await orchestrator.watched.wait()
    await asyncio.sleep(0.3)
    assert ctypes.CDLL(None).tgkill(process.pid, newest_thread(process.pid), signal.SIGINT) == 0
    await process.communicate()
    assert process.returncode == 130


async def test_following_ends_quietly_when_its_reader_does(address: str) -> None:
    command = f"{sys.executable} -m admin events | head -n 1"
    process = await asyncio.create_subprocess_shell(
        command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "VMSHEPHERD_ADDRESS": address},
    )
    out, err = await process.communicate()
    assert out.startswith(b"TIME")
    assert err == b""


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("> /dev/full", 1, b"the output cannot be written: No space left on device\n"),
        (">&-", 0, b""),
    ],
)
async def test_an_output_that_cannot_be_written_is_told_in_a_sentence(
    address: str, where: str, code: int, said: bytes
) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m admin preset list {where}",
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "VMSHEPHERD_ADDRESS": address},
    )
    _, err = await process.communicate()
    assert (process.returncode, err) == (code, said)


async def test_info_shows_services_that_do_not_answer_and_a_refused_configuration(
    vmshepherd: Command,
) -> None:
    ran = await vmshepherd("info")
    assert "suite.yaml:3: nonsense" in ran.out
    assert "iaas     127.0.0.1:1  unreachable  refused" in ran.out


async def test_info_shows_who_holds_what_since_when_and_under_which_token(
    vmshepherd: Command,
) -> None:
    ran = await vmshepherd("info")
    words = [line.split() for line in ran.out.splitlines()]
    assert ["here-1", "0s", "1", "70", "%", "host=here"] in words
    assert ["web", "here-1", "1m", "30s", "41"] in words


async def test_another_program_at_the_address_is_told(vmshepherd: Command) -> None:
    async with serve.running([], serve.Listen(address="127.0.0.1:0")) as other:
        ran = await commands_to(other.address)("preset", "list")
    assert ran.code == 1
    assert "is not the orchestrator" in ran.err


async def test_help_comes_before_anybody_could_wait_for_it(vmshepherd: Command) -> None:
    code = "import sys; sys.argv = ['vmshepherd', '--help']; import admin.main as m\n"
    code += "try: m.main()\nexcept SystemExit: pass\n"
    code += "heavy = {'grpc', 'google.protobuf', 'pydantic', 'uvloop'} & set(sys.modules)\n"
    code += "print('HEAVY', sorted(heavy))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert b"HEAVY []" in out
    assert b"Exit codes" in out


async def test_a_preset_file_is_checked_without_a_suite(
    vmshepherd: Command, tmp_path: Path
) -> None:
    fine, wrong = tmp_path / "fine.yaml", tmp_path / "wrong.yaml"
    fine.write_text("count: 2\n")
    wrong.write_text("name: other\ncuont: 2\n")
    ran = await vmshepherd("preset", "validate", str(fine), str(wrong))
    assert ran.code == 1
    assert f"{fine}: fine: preset fine" in ran.out
    assert f"{wrong}:2: cuont: unknown key" in ran.out
    assert "'count'" in ran.out
    assert (await vmshepherd("preset", "validate", str(fine))).code == 0


async def test_findings_in_json_are_one_answer_of_the_api_a_file(
    vmshepherd: Command, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("count: many\n")
    ran = await vmshepherd("preset", "validate", str(wrong), "-o", "json")
    [finding] = ran.json["findings"]
    assert (ran.code, finding["line"], finding["key"]) == (1, 1, "count")
    assert finding["file"] == str(wrong)


async def test_templates_and_files_of_user_data_are_tried_too(
    vmshepherd: Command, tmp_path: Path
) -> None:
    (tmp_path / "boot.sh").write_text("#!/bin/sh\n# {{ nmae }}\n")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("count: 1\nuserdata: file://boot.sh\n")
    ran = await vmshepherd("preset", "validate", str(wrong))
    assert ran.code == 1
    assert f"{wrong}:2: userdata: " in ran.out
    assert "nmae" in ran.out


async def test_two_files_that_declare_one_preset_are_found(
    vmshepherd: Command, tmp_path: Path
) -> None:
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for path in paths:
        path.write_text("name: web\ncount: 1\n")
    ran = await vmshepherd("preset", "validate", *map(str, paths))
    assert ran.code == 1
    assert ran.out.count("'web' is declared by another of these files too") == 2


async def test_defaults_of_the_configuration_count_when_a_preset_is_checked(
    vmshepherd: Command, tmp_path: Path
) -> None:
    (tmp_path / "web.yaml").write_text("count: 1\npolicy: {max_surge: 0}\n")
    suite = tmp_path / "suite.yaml"
    suite.write_text("preset: {defaults: {policy: {max_unavailable: 0}}}\n")
    web = str(tmp_path / "web.yaml")
    assert (await vmshepherd("preset", "validate", web)).code == 0
    assert (await vmshepherd("preset", "validate", web, "-c", str(suite))).code == 1


async def test_a_preset_file_that_is_not_there_is_a_finding(
    vmshepherd: Command, tmp_path: Path
) -> None:
    ran = await vmshepherd("preset", "validate", str(tmp_path / "none.yaml"))
    assert ran.code == 1
    assert "none.yaml: cannot be read: No such file or directory" in ran.out


async def test_a_configuration_is_checked_section_by_section_and_driver_by_driver(
    vmshepherd: Command, tmp_path: Path
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(
        "health: {concurency: 5}\n"
        "runtime: {driver: sqlte}\n"
        "iaas: {providers: {here: {driver: process, options: {ports: 1}}}}\n"
        "preset: {sources: [{name: a, driver: directory, options: {paht: x}}]}\n"
    )
    ran = await vmshepherd("config", "check", str(path))
    assert ran.code == 1
    for expected in (
        f"{path}:1: health.concurency: unknown key; did you mean 'concurrency'?",
        f"{path}:2: runtime.driver: there is no runtime driver 'sqlte'",
        f"{path}:3: iaas.providers.here.options.ports: unknown key; did you mean 'port'?",
        f"{path}:4: preset.sources.0.options.paht: unknown key; did you mean 'path'?",
    ):
        assert expected in ran.out
    assert len((await vmshepherd("config", "check", str(path), "-o", "json")).json["findings"]) >= 4


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("vmshepherd.yaml", "presets.d"),
        ("openstack/vmshepherd.yaml", "openstack/presets.d"),
        ("predecessor/settings.example.yaml", "predecessor/config/presets.d"),
    ],
)
async def test_the_examples_are_fine(vmshepherd: Command, name: str, folder: str) -> None:
    examples = Path(__file__).parents[2] / "examples"
    ran = await vmshepherd("config", "check", str(examples / name))
    assert ran.code == 0, ran.out
    files = [str(path) for path in (examples / folder).iterdir() if path.is_file()]
    assert files
    ran = await vmshepherd("preset", "validate", *files, "-c", str(examples / name))
    assert ran.code == 0, ran.out
