"""`vmshepherd doctor`: what keeps a suite from making its VMs, told before the first one is made.

It asks the services that run.  Those that do not are started within this process for the time of
the checks, from the same file, so that a newcomer can ask before the first `up`.  Nothing is made,
changed or destroyed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import typer

from admin import doctor_cloud, doctor_presets, doctor_services, interrupts, validation
from admin.doctor_cloud import Ward
from admin.doctor_presets import Declared
from admin.doctor_report import Finding, Report, Status
from admin.doctor_services import Addresses
from admin.options import Asking, Exit, fail
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd.preset.v1.preset_service_pb2_grpc import PresetServiceStub
from vmshepherd_kit import config_file, dial, entry
from vmshepherd_kit.config_file import Configuration, Unreadable
from vmshepherd_kit.errors import ShepherdError


def examine(asking: Asking, path: Path | None, *, preset: str, orchestrator: str | None) -> None:
    """Make all checks; exits with 1 when something is wrong."""
    report = Report(asking)
    configuration = _configuration(path, report)
    if configuration is not None:
        # What the services of this process would log is told by the findings, but for bugs: the
        # finding names an incident, and this is the only log that has it.
        entry.set_log(configuration.log.model_copy(update={"level": "error"}))
        doctor = Doctor(configuration, report, preset=preset, orchestrator=orchestrator)
        interrupts.run(doctor.examine())
    if code := report.close():
        raise typer.Exit(code)


class Doctor:
    """One run over one configuration; with a `preset`, of the specs that one alone."""

    def __init__(
        self, configuration: Configuration, report: Report, *, preset: str, orchestrator: str | None
    ) -> None:
        self._configuration = configuration
        self._report = report
        self._preset = preset
        self._orchestrator = orchestrator

    async def examine(self) -> None:
        """Services, store, presets, providers, specs, in this order."""
        asked = await doctor_services.ask_all(self._configuration, self._orchestrator)
        self._report.add(*doctor_services.judged(asked, self._configuration))
        async with AsyncExitStack() as stack:
            addresses, found = await doctor_services.stand_in(stack, self._configuration, asked)
            found = [*found, *await doctor_services.check_suite(self._configuration, addresses)]
            self._report.add(*found)
            specs = await self._specs(addresses)
            wards = await self._wards(stack, addresses)
            for place, ward in enumerate(wards):
                names = {ward.name, ""} if place == 0 else {ward.name}
                await self._provider(ward, [each for each in specs if each.provider in names])
            if doctor_services.are_all_known("iaas", asked):
                self._report.add(*_strays(specs, wards))

    async def _specs(self, addresses: Addresses) -> Sequence[Declared]:
        found: list[Declared] = []
        for address in addresses["preset"]:
            try:
                async with dial.channel(address) as channel:
                    presets, sources = await doctor_presets.read(PresetServiceStub(channel))
            except ShepherdError as e:
                self._report.add(_wrong("preset", "presets", e.message))
                continue
            if self._preset:
                presets = [each for each in presets if each.name == self._preset]
            self._report.add(*doctor_presets.findings(presets, sources))
            found += doctor_presets.specs(presets)
            if self._preset and not presets:
                raise fail(f"there is no preset {self._preset!r}", Exit.NOT_FOUND)
        return found

    async def _wards(self, stack: AsyncExitStack, addresses: Addresses) -> Sequence[Ward]:
        found: list[Ward] = []
        for address in addresses["iaas"]:
            channel = await stack.enter_async_context(dial.channel(address))
            try:
                found += await doctor_cloud.wards(IaasServiceStub(channel))
            except ShepherdError as e:
                self._report.add(_wrong("iaas", "providers", e.message))
        return found

    async def _provider(self, ward: Ward, specs: Sequence[Declared]) -> None:
        if self._preset and not specs:
            return
        found = list(await doctor_cloud.check_provider(ward))
        suite = doctor_services.same_suite(ward.name, ward.suite_id, self._configuration)
        self._report.add(*(() if suite.status is Status.OK else (suite,)), *found)
        if not specs:
            return
        if any(_is_barred(finding) for finding in found):
            self._report.add(*(_not_tried(spec) for spec in specs if not spec.is_fallback))
            return
        async for finding in doctor_cloud.check_specs(ward, specs):
            self._report.add(finding)
        async for finding in doctor_cloud.check_demand(ward, specs):
            self._report.add(finding)


def _configuration(path: Path | None, report: Report) -> Configuration | None:
    try:
        configuration = config_file.read(path) if path else config_file.defaults()
    except Unreadable as e:
        report.add(*(_wrong("file", "configuration", fault) for fault in e.lines))
        return None
    if faults := list(validation.faults(configuration)):
        report.add(*(_wrong("file", "configuration", fault) for fault in faults))
        return None
    name = str(path) if path else "no file, so all by default"
    report.add(Finding(subject="file", check="configuration", status=Status.OK, message=name))
    return configuration


def _strays(specs: Sequence[Declared], wards: Sequence[Ward]) -> Iterator[Finding]:
    """Presets of providers that nobody has; where none is known at all, that is told already."""
    known = [ward.name for ward in wards]
    for spec in specs:
        if known and spec.provider and spec.provider not in known and not spec.is_fallback:
            sentence = f"there is no provider {spec.provider!r}; there are: {', '.join(known)}"
            yield replace(_wrong(spec.name, "spec", sentence), way_out=f"correct {spec.file}")


def _is_barred(finding: Finding) -> bool:
    """Whether the provider is so wrong that not even its VMs could be listed."""
    return finding.check == "listing" and finding.status is Status.UNCHECKED


def _not_tried(spec: Declared) -> Finding:
    message = "not tried: its provider is wrong"
    return Finding(subject=spec.name, check="spec", status=Status.UNCHECKED, message=message)


def _wrong(subject: str, check: str, message: str) -> Finding:
    return Finding(subject=subject, check=check, status=Status.WRONG, message=message)
