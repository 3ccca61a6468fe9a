"""The presets as their sources declare them, for `vmshepherd doctor`: what is wrong with the files,
and the specs that are to be tried on the clouds, those to fall back on included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from admin.client import pages
from admin.doctor_report import Finding, Status
from orchestrator.clients.presets import declared
from vmshepherd.iaas.v1.vm_pb2 import VmSpec
from vmshepherd.preset.v1 import preset_service_pb2 as api
from vmshepherd.preset.v1.preset_pb2 import SEVERITY_WARNING, Preset, Source
from vmshepherd.preset.v1.preset_service_pb2_grpc import PresetServiceStub
from vmshepherd_kit import dial


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One spec to be tried: a preset's own, or that of one of its fallbacks."""

    name: str
    file: str
    provider: str
    """"" is the orchestrator's default."""
    count: int
    spec: VmSpec
    fallback: str = ""

    @property
    def is_fallback(self) -> bool:
        """Whether it is no more than a second choice."""
        return bool(self.fallback)

    @property
    def words(self) -> str:
        """What stands before a sentence about it."""
        return f"with {self.fallback}: " if self.fallback else ""


async def read(stub: PresetServiceStub) -> tuple[Sequence[Preset], Sequence[Source]]:
    """All presets, and where they come from."""
    presets = [
        preset
        async for page in pages(stub.ListPresets, api.ListPresetsRequest())
        for preset in page.presets
    ]
    sources = (await dial.ask(stub.ListSources, api.ListSourcesRequest())).sources
    return presets, list(sources)


def findings(presets: Sequence[Preset], sources: Sequence[Source]) -> Iterator[Finding]:
    """What is wrong with sources and files; nothing of those that are fine but their number."""
    told = {found.file for preset in presets for found in preset.findings}
    for source in sources:
        yield _of_source(source, told)
    for preset in presets:
        for found in preset.findings:
            place = f"{found.file}:{found.line}" if found.line else found.file
            is_warning = found.severity == SEVERITY_WARNING
            yield Finding(
                subject=preset.name,
                check="file",
                status=Status.UNCHECKED if is_warning else Status.WRONG,
                message=f"{place}: {f'{found.key}: ' if found.key else ''}{found.message}",
                way_out="" if is_warning else f"correct {found.file}",
            )


def specs(presets: Sequence[Preset]) -> Iterator[Declared]:
    """What VMs are made of: each preset's spec, then each of its fallbacks alone."""
    for preset in presets:
        told = declared(preset)
        if told.vm_spec is None or preset.spec.unmanaged:
            continue
        for fallback, spec in _variants(preset, told.vm_spec):
            yield Declared(
                name=preset.name,
                file=preset.file,
                provider=told.provider,
                count=preset.spec.count,
                spec=spec,
                fallback=fallback,
            )


def _variants(preset: Preset, spec: VmSpec) -> Iterator[tuple[str, VmSpec]]:
    zones = list(preset.spec.network.availability_zones)
    yield "", _with(spec, availability_zone=zones[0]) if zones else spec
    for zone in zones[1:]:
        yield f"zone {zone}", _with(spec, availability_zone=zone)
    for flavor in preset.spec.fallback_flavors:
        yield f"flavor {flavor}", _with(spec, flavor=flavor)
    for image in preset.spec.fallback_images:
        yield f"image {image}", _with(spec, image=image)


def _with(spec: VmSpec, **fields: str) -> VmSpec:
    changed = VmSpec()
    changed.CopyFrom(spec)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _of_source(source: Source, told: Collection[str]) -> Finding:
    """The source as a whole, and those of its files whose presets nobody knows."""
    if source.error:
        return Finding(
            subject="preset",
            check="source",
            status=Status.WRONG,
            message=f"{source.name}: {source.error}",
            way_out=f"see {source.location}, and preset.sources of the file",
        )
    files = [
        found
        for found in source.findings
        if found.severity != SEVERITY_WARNING and found.file not in told
    ]
    presets = f"{source.presets} preset{'' if source.presets == 1 else 's'}"
    message = f"{source.name}: {presets} in {source.location}"
    if not files:
        return Finding(subject="preset", check="source", status=Status.OK, message=message)
    first = files[0]
    sentence = f"{message}; {first.file}:{first.line}: {first.message}"
    return Finding(
        subject="preset",
        check="source",
        status=Status.WRONG,
        message=sentence,
        way_out=f"correct {', '.join(sorted({found.file for found in files}))}",
    )
