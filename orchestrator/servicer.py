"""The admin API: one method an RPC, validate → ask → convert. It decides nothing and touches no VM.

What people wish is written down (`desk`) and carried out by the cycle of whoever holds the preset.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc

from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as pb
from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceServicer
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime_pb
from vmshepherd_kit import status
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound, Refused, ShepherdError
from vmshepherd_kit.stamps import to_duration, to_timestamp

from . import asked, views
from .clients.runtime import Runtime
from .cycle import Cycles
from .fitness import Fitness
from .info import Informant
from .journal import Journal
from .looks import Looks
from .model import Create, PresetName
from .narrate import Telling
from .overview import Overviews
from .schedule import Schedule

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the servicer asks."""

    cycles: Cycles
    schedule: Schedule
    overviews: Overviews
    runtime: Runtime
    journal: Journal
    informant: Informant
    fitness: Fitness
    looks: Looks
    clock: Clock


class OrchestratorServicer(OrchestratorServiceServicer):
    """vmshepherd.orchestrator.v1.OrchestratorService."""

    def __init__(self, parts: Parts) -> None:
        self._ = parts

    async def ListPresets(
        self, request: pb.ListPresetsRequest, context: Context
    ) -> pb.ListPresetsResponse:
        """Presets in order of names."""
        found = [each.preset for each in await self._.overviews.all()]
        page, token = asked.page(
            found, request.page_size, request.page_token, lambda view: [view.name]
        )
        errors = await self._.informant.source_errors() if not request.page_token else []
        return pb.ListPresetsResponse(presets=page, next_page_token=token, source_errors=errors)

    async def GetPreset(
        self, request: pb.GetPresetRequest, context: Context
    ) -> pb.GetPresetResponse:
        """One preset with its VMs."""
        found = await self._.overviews.get(asked.required(request.preset, "preset"))
        return pb.GetPresetResponse(preset=found.preset, vms=found.vms)

    async def PlanPreset(
        self, request: pb.PlanPresetRequest, context: Context
    ) -> pb.PlanPresetResponse:
        """What the next cycle would do."""
        name = await self._known(asked.required(request.preset, "preset"))
        seen, plan, look = await self._.cycles.plan(name)
        shown = views.of_plan(plan, seen)
        message = views.plan_message(plan)
        message.refusals.extend(views.refusal(each) for each in seen.notes)
        message.next_look.CopyFrom(to_duration(look))
        return pb.PlanPresetResponse(plan=message, vms=views.vm_views(name, shown))

    async def ReconcilePreset(
        self, request: pb.ReconcilePresetRequest, context: Context
    ) -> pb.ReconcilePresetResponse:
        """Look now."""
        asked.reconcile(request)
        names = [PresetName(name) for name in request.presets] or self._.cycles.presets.names()
        errors = await self._approved(names, request.actor) if request.approve_count else {}
        if not set(names) <= {*self._.cycles.presets.names()}:
            # The removed ones among them are in the store.
            await self._.cycles.removals.stored()
        kept = {*self._.cycles.presets.names(), *self._.cycles.removals.names()}
        known = [name for name in names if name in kept and name not in errors]
        are_all = not request.presets
        if not request.wait:
            await self._.looks.begin(known, are_all=are_all)
            return pb.ReconcilePresetResponse(
                results=[self._reconciled(name, errors.get(name)) for name in names]
            )
        for name in await self._.looks.finish(known, are_all=are_all):
            errors[name] = self._elsewhere(name)
        seen = await asyncio.gather(*map(self._view, names))
        return pb.ReconcilePresetResponse(
            results=[
                self._reconciled(name, errors.get(name), view)
                for name, view in zip(names, seen, strict=True)
            ]
        )

    async def PausePreset(
        self, request: pb.PausePresetRequest, context: Context
    ) -> pb.PausePresetResponse:
        """Stop the work on a preset."""
        name = await self._known(asked.required(request.preset, "preset"))
        pause = asked.pause(request, now=self._.clock.wall())

        def change(record: record_pb2.OperatorRecord) -> None:
            record.pause.CopyFrom(pause)

        await self._.cycles.desk.change(name, change)
        what = ", ".join(view_pb2.Process.Name(p)[8:].lower() for p in pause.processes)
        await self._told(
            name, "PRESET_PAUSED", f"paused {what or 'everything'}: {pause.reason}", pause.actor
        )
        return pb.PausePresetResponse(pause=pause)

    async def ResumePreset(
        self, request: pb.ResumePresetRequest, context: Context
    ) -> pb.ResumePresetResponse:
        """End a pause, and whatever the preset suspended by itself."""
        name = await self._known(asked.required(request.preset, "preset"))
        actor, was_paused = asked.actor(request.actor), False

        def change(record: record_pb2.OperatorRecord) -> None:
            nonlocal was_paused
            was_paused = record.HasField("pause")
            record.ClearField("pause")
            record.resumes += 1

        await self._.cycles.desk.change(name, change)
        await self._told(name, "PRESET_RESUMED", "resumed", actor)
        return pb.ResumePresetResponse(was_paused=was_paused)

    async def ListVms(self, request: pb.ListVmsRequest, context: Context) -> pb.ListVmsResponse:
        """VMs in order of preset, then id."""
        if request.preset:
            found = [await self._.overviews.get(request.preset)]
        else:
            found = await self._.overviews.all()
        wanted = set(request.statuses)
        vms = [vm for each in found for vm in each.vms if not wanted or vm.status in wanted]
        page, token = asked.page(
            vms, request.page_size, request.page_token, lambda vm: [vm.preset, vm.vm_id]
        )
        return pb.ListVmsResponse(vms=page, next_page_token=token)

    async def GetVm(self, request: pb.GetVmRequest, context: Context) -> pb.GetVmResponse:
        """One VM."""
        vm = await self._find(asked.required(request.vm_id, "vm_id"))
        if vm is None:
            raise await self._no_vm(request.vm_id)
        return pb.GetVmResponse(vm=vm)

    async def TerminateVm(
        self, request: pb.TerminateVmRequest, context: Context
    ) -> pb.TerminateVmResponse:
        """Have a VM destroyed by the next cycle."""
        name = await self._known(asked.required(request.preset, "preset"))
        vm_id, actor = asked.required(request.vm_id, "vm_id"), asked.actor(request.actor)
        reason = asked.short(request.reason, "reason", asked.LONGEST_REASON)
        vm = await self._find(vm_id)
        if vm is None:
            return pb.TerminateVmResponse(existed=False)
        asked.termination(request, vm, await self._.cycles.desk.read(name))
        wish = record_pb2.TerminationWish(
            vm_id=vm_id,
            actor=actor,
            reason=reason,
            force=request.force,
            asked_time=to_timestamp(self._.clock.wall()),
        )

        def change(record: record_pb2.OperatorRecord) -> None:
            kept = [each for each in record.terminations if each.vm_id != vm_id]
            del record.terminations[:]
            record.terminations.extend([*kept, wish])

        await self._.cycles.desk.change(name, change)
        message = f"{actor} wants it gone: {reason or 'no reason given'}"
        await self._told(name, "TERMINATION_WISHED", message, actor, vm_id=vm_id)
        return pb.TerminateVmResponse(existed=True)

    async def ProtectVm(
        self, request: pb.ProtectVmRequest, context: Context
    ) -> pb.ProtectVmResponse:
        """Have a VM left alone, or end that."""
        name = await self._known(asked.required(request.preset, "preset"))
        wanted = asked.protection(request, now=self._.clock.wall())
        vm = await self._find(wanted.vm_id)
        if vm is None:
            raise await self._no_vm(wanted.vm_id)
        asked.vm_of(vm, name)
        was_protected = False

        def change(record: record_pb2.OperatorRecord) -> None:
            nonlocal was_protected
            others = [each for each in record.protections if each.vm_id != wanted.vm_id]
            was_protected = len(others) < len(record.protections)
            del record.protections[:]
            record.protections.extend([*others, wanted] if request.protected else others)
            if request.protected:
                _strike_wish(record, wanted.vm_id)

        await self._.cycles.desk.change(name, change)
        if request.protected or was_protected:
            await self._told_of_protection(name, wanted, is_on=request.protected)
        return pb.ProtectVmResponse(was_protected=was_protected)

    async def ExplainVm(
        self, request: pb.ExplainVmRequest, context: Context
    ) -> pb.ExplainVmResponse:
        """Why a VM is, or is not, touched."""
        vm_id = asked.required(request.vm_id, "vm_id")
        vm = await self._find(vm_id)
        wanted = runtime_pb.ListEventsRequest(page_size=asked.DEFAULT_PAGE)
        wanted.filter.vm_id = vm_id
        events = list((await self._.runtime.list_events(wanted)).events)
        if vm is None and not events:
            raise await self._no_vm(vm_id)
        answer = pb.ExplainVmResponse(vm=vm, events=reversed(events))
        if vm is not None:
            overview = await self._.overviews.get(vm.preset)
            answer.conditions.extend(overview.preset.conditions)
            step = self._step(PresetName(vm.preset), vm_id)
            if step is not None:
                answer.step.CopyFrom(step)
        return answer

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: Context
    ) -> pb.ListEventsResponse:
        """A page of the journal."""
        answer = await self._.runtime.list_events(
            runtime_pb.ListEventsRequest(
                filter=request.filter,
                ascending=request.ascending,
                page_size=request.page_size,
                page_token=request.page_token,
            )
        )
        return pb.ListEventsResponse(events=answer.events, next_page_token=answer.next_page_token)

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """The journal as it grows."""
        after = request.after_sequence if request.HasField("after_sequence") else None
        wanted = runtime_pb.WatchEventsRequest(filter=request.filter, after_sequence=after)
        async with aclosing(self._.runtime.watch_events(wanted)) as stream:
            async for chunk in stream:
                yield pb.WatchEventsResponse(events=chunk.events, sequence=chunk.sequence)

    async def GetInfo(self, request: pb.GetInfoRequest, context: Context) -> pb.GetInfoResponse:
        """The state of the suite."""
        return await self._.informant.info()

    async def _known(self, text: str) -> PresetName:
        """The name of a preset that is declared, or removed and not over."""
        name = PresetName(text)
        declared = self._.cycles.presets.get(name)
        if declared is None and name not in self._.cycles.removals.names():
            # Not known here so far, or not at all.
            await self._.cycles.removals.stored()
            if name not in self._.cycles.removals.names():
                raise self._.overviews.unknown(text)
        if declared is not None and declared.spec is None:
            raise Refused(
                f"preset {name} has never been read successfully: mend its file first",
                reason="NEVER_READ",
            )
        return name

    async def _approved(
        self, names: Sequence[PresetName], actor: str
    ) -> dict[PresetName, ShepherdError]:
        """Approve the declared counts; the errors of those that could not be."""
        found = await asyncio.gather(*(self._approve(name, actor) for name in names))
        return {name: error for name, error in zip(names, found, strict=True) if error}

    async def _approve(self, name: PresetName, actor: str) -> ShepherdError | None:
        try:
            await self._approve_count(name, actor)
        except ShepherdError as e:
            return e
        return None

    async def _approve_count(self, name: PresetName, actor: str) -> None:
        preset = await self._known(name)
        declared = self._.cycles.presets.get(preset)
        # Of a removed preset nothing is wanted any more.
        count = declared.message.spec.count if declared else 0
        what = f"a count of {count}" if declared else "its removal"

        def change(record: record_pb2.OperatorRecord) -> None:
            record.approved_count = count

        await self._.cycles.desk.change(preset, change)
        await self._told(preset, "COUNT_APPROVED", f"{what} is approved", actor)

    async def _view(self, name: PresetName) -> view_pb2.PresetView | None:
        """A preset as it is shown; None when it is over by now."""
        try:
            return (await self._.overviews.get(name)).preset
        except NotFound:
            return None

    def _elsewhere(self, name: PresetName) -> Refused:
        holder = self._.cycles.replicas.home(name) or "nobody yet"
        return Refused(f"preset {name} is held by {holder}, which was told", reason="ELSEWHERE")

    def _reconciled(
        self,
        name: PresetName,
        error: ShepherdError | None,
        view: view_pb2.PresetView | None = None,
    ) -> pb.ReconcileResult:
        declared = self._.cycles.presets.get(name)
        if declared is None and name not in self._.cycles.removals.names():
            error = self._.overviews.unknown(name)
        return pb.ReconcileResult(
            preset=name, status=status.to_proto(error), view=None if error else view
        )

    async def _find(self, vm_id: str) -> view_pb2.VmView | None:
        found = (vm for each in await self._.overviews.all() for vm in each.vms)
        return next((vm for vm in found if vm.vm_id == vm_id), None)

    async def _no_vm(self, text: str) -> NotFound:
        """The error for a VM that nobody knows; names the one whose name or beginning that is."""
        found = (vm for each in await self._.overviews.all() for vm in each.vms)
        near = next((vm for vm in found if vm.name == text or vm.vm_id.startswith(text)), None)
        hint = f"; did you mean {near.vm_id!r} of preset {near.preset}?" if near else ""
        return NotFound(f"no preset has a VM {text!r}{hint}", vm_id=text)

    def _step(self, name: PresetName, vm_id: str) -> view_pb2.PlanStep | None:
        shown = self._.cycles.board.get(name)
        steps = shown.plan.steps if shown and shown.plan else ()
        ours = (s for s in steps if not isinstance(s, Create) and s.vm.vm_id == vm_id)
        return next(map(views.step_message, ours), None)

    async def _told_of_protection(
        self, name: PresetName, wanted: record_pb2.Protection, *, is_on: bool
    ) -> None:
        kind = "VM_PROTECTED" if is_on else "VM_UNPROTECTED"
        said = "protects it" if is_on else "protects it no more"
        message = f"{wanted.actor} {said}: {wanted.reason or 'no reason given'}"
        await self._told(name, kind, message, wanted.actor, vm_id=wanted.vm_id)

    async def _told(
        self, name: PresetName, kind: str, message: str, actor: str, *, vm_id: str = ""
    ) -> None:
        telling = Telling(kind=kind, message=message, vm_id=vm_id)
        await self._.journal.record(name, [telling], actor=actor)
        self._.schedule.wake([name])


def _strike_wish(record: record_pb2.OperatorRecord, vm_id: str) -> None:
    """Who protects a VM does not want it gone: an older wish must not wait for the end of that."""
    kept = [each for each in record.terminations if each.vm_id != vm_id or each.force]
    del record.terminations[:]
    record.terminations.extend(kept)
