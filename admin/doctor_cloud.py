"""The providers and the specs of presets, for `vmshepherd doctor`, asked of the iaas services.

Each provider's driver says what is wrong with its cloud, resolves each spec without making a VM,
and tells its quotas, which are held against what the presets still want.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from google.protobuf import json_format

from admin import demand
from admin.client import pages
from admin.demand import Wish
from admin.doctor_presets import Declared
from admin.doctor_report import Finding, Status
from vmshepherd.iaas.v1 import iaas_service_pb2 as api
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd.iaas.v1.vm_pb2 import Provider
from vmshepherd_kit import dial, status
from vmshepherd_kit.errors import Recovery, ShepherdError, Unsupported

# A cloud that is out of reach takes its time, check by check.
_PATIENCE: Final = timedelta(seconds=120)
# User data make specs large, and a message has its limit.
_MOST_SPECS: Final = 40

_STATUSES: Final = {
    api.CHECK_STATUS_OK: Status.OK,
    api.CHECK_STATUS_UNCHECKED: Status.UNCHECKED,
}


@dataclass(frozen=True, kw_only=True)
class Ward:
    """A provider, and the service that has it."""

    name: str
    stub: IaasServiceStub
    suite_id: str


async def wards(stub: IaasServiceStub) -> Sequence[Ward]:
    """The providers of one service."""
    found = []
    async for page in pages(stub.ListProviders, api.ListProvidersRequest()):
        found += [_ward(stub, each, page.suite_id) for each in page.providers]
    return found


async def check_provider(ward: Ward) -> Sequence[Finding]:
    """What its driver finds."""
    request = api.CheckProviderRequest(provider=ward.name)
    try:
        answer = await dial.ask(ward.stub.CheckProvider, request, deadline=_PATIENCE)
    except ShepherdError as e:
        return [_wrong(ward.name, "provider", e.message)]
    return [
        Finding(
            subject=ward.name,
            check=check.name,
            status=_STATUSES.get(check.status, Status.WRONG),
            message=check.message,
            way_out=check.way_out,
        )
        for check in answer.checks
    ]


async def check_specs(ward: Ward, presets: Sequence[Declared]) -> AsyncIterator[Finding]:
    """What the spec of each preset stands for in this cloud, its fallbacks included."""
    for start in range(0, len(presets), _MOST_SPECS):
        batch = presets[start : start + _MOST_SPECS]
        specs = [api.SpecCheck(preset=each.name, spec=each.spec) for each in batch]
        request = api.CheckSpecsRequest(provider=ward.name, specs=specs)
        try:
            answer = await dial.ask(ward.stub.CheckSpecs, request, deadline=_PATIENCE)
        except ShepherdError as e:
            yield _wrong(ward.name, "specs", e.message)
            return
        for preset, result in zip(batch, answer.results, strict=True):
            yield _of_spec(preset, result)


async def check_demand(ward: Ward, presets: Sequence[Declared]) -> AsyncIterator[Finding]:
    """Whether the quotas leave room for the VMs that are still to be made."""
    try:
        wishes = await _wishes(ward, presets)
        quotas, entries = await _catalog(ward)
    except ShepherdError as e:
        message = f"it cannot be told how much is wanted: {e.message}"
        yield Finding(subject=ward.name, check="demand", status=Status.UNCHECKED, message=message)
        return
    short = list(demand.shortages(wishes, quotas, entries))
    for sentence in short:
        yield _wrong(
            ward.name, "demand", sentence, "lower the counts, or ask the cloud for a higher quota"
        )
    if not short:
        wanted = sum(wish.vms for wish in wishes)
        message = f"{wanted} VM{'' if wanted == 1 else 's'} to be made, within the quotas"
        yield Finding(subject=ward.name, check="demand", status=Status.OK, message=message)


async def _wishes(ward: Ward, presets: Sequence[Declared]) -> list[Wish]:
    there: dict[str, int] = {}
    async for page in pages(ward.stub.ListVms, api.ListVmsRequest(provider=ward.name)):
        for vm in page.vms:
            there[vm.marker.preset] = there.get(vm.marker.preset, 0) + 1
    return [_wish(each, there.get(each.name, 0)) for each in presets if not each.is_fallback]


def _wish(preset: Declared, there: int) -> Wish:
    spec, options = preset.spec, json_format.MessageToDict(preset.spec.options)
    return Wish(
        flavor=spec.flavor,
        vms=max(preset.count - there, 0),
        # Where a preset names no network, its VMs get one all the same, unless it wants none.
        ports=0 if options.get("networks") == "none" else max(len(spec.networks), 1),
        project=str(options.get("project") or options.get("project_name") or ""),
        region=str(options.get("region") or ""),
    )


async def _catalog(ward: Ward) -> tuple[list[api.Quota], list[api.CatalogEntry]]:
    quotas: list[api.Quota] = []
    entries: list[api.CatalogEntry] = []
    async for page in pages(ward.stub.ListCatalog, api.ListCatalogRequest(provider=ward.name)):
        quotas += page.quotas
        entries += page.entries
    return quotas, entries


def _ward(stub: IaasServiceStub, provider: Provider, suite_id: str) -> Ward:
    return Ward(name=provider.name, stub=stub, suite_id=suite_id)


def _of_spec(preset: Declared, result: api.SpecResult) -> Finding:
    error = status.from_proto(result.status)
    if error is None:
        return Finding(
            subject=preset.name,
            check="spec",
            status=Status.OK,
            message=preset.words + result.message,
        )
    if isinstance(error, Unsupported) and not error.facts:
        return Finding(
            subject=preset.name, check="spec", status=Status.UNCHECKED, message=error.message
        )
    way_out = f"correct {preset.file}" if error.then is Recovery.FIX else ""
    return _wrong(preset.name, "spec", preset.words + error.message, way_out)


def _wrong(subject: str, check: str, message: str, way_out: str = "") -> Finding:
    return Finding(
        subject=subject, check=check, status=Status.WRONG, message=message, way_out=way_out
    )
