"""IaasService of the contract: one method an RPC, which validates, asks, converts.

Who asks is any client of the contract, the orchestrator above all.  What may be done is judged by
`mutations` and `gates`, how it is done by the drivers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence, Sized
from datetime import timedelta
from typing import Any, Final, Protocol

from vmshepherd.iaas.v1 import iaas_service_pb2, iaas_service_pb2_grpc
from vmshepherd_kit import pages
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.errors import BadRequest, NotFound, Unsupported, Violation
from vmshepherd_kit.stamps import to_timestamp

from . import checks, consoles, convert
from .deadlines import Deadline
from .domain import VmId
from .gates import Gates, Limits
from .mutations import Mutations
from .port import Trait
from .providers import Provider, Reading, Snapshots
from .shown import Shown
from .tokens import TokenFloors

_BATCH: Final = 1000
_PAGE: Final = 1000
_LARGEST_PAGE: Final = 2000
_BOOKMARK_EVERY: Final = timedelta(seconds=15)


class Context(Protocol):
    """What is asked of a call."""

    def time_remaining(self) -> float | None:
        """Seconds until its deadline, None without one."""
        ...


class IaasServicer(iaas_service_pb2_grpc.IaasServiceServicer):
    """The VMs of some providers, behind the gates of one suite."""

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        suite_id: str,
        clock: Clock,
        chance: Chance,
        limits: Limits | None = None,
    ) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._suite_id = suite_id
        self._clock = clock
        self._tokens = TokenFloors()
        self._gates = Gates(limits or Limits(), self._tokens, suite_id=suite_id)
        self._mutations = Mutations(
            gates=self._gates, tokens=self._tokens, clock=clock, chance=chance
        )
        self._snapshots = Snapshots(clock, chance)
        self._shown = {name: Shown(name) for name in self._providers}

    async def close(self) -> None:
        """End what the last calls left behind; what was sent to a cloud is waited for."""
        await self._mutations.close()
        for provider in self._providers.values():
            await provider.listings.close()

    async def ListProviders(
        self, request: iaas_service_pb2.ListProvidersRequest, context: Context
    ) -> iaas_service_pb2.ListProvidersResponse:
        """In order of the configuration."""
        size = pages.clamp(request.page_size, default=_PAGE, maximum=_PAGE)
        start = _whole(pages.decode(request.page_token), "offset")
        providers = list(self._providers.values())
        return iaas_service_pb2.ListProvidersResponse(
            providers=[convert.provider_message(p) for p in providers[start : start + size]],
            next_page_token=_next(providers, start + size),
            suite_id=self._suite_id,
        )

    async def ListVms(
        self, request: iaas_service_pb2.ListVmsRequest, context: Context
    ) -> iaas_service_pb2.ListVmsResponse:
        """One reading of the cloud, page by page."""
        provider = self._provider(request.provider)
        size = pages.clamp(request.page_size, default=_PAGE, maximum=_LARGEST_PAGE)
        position = pages.decode(request.page_token)
        shown = self._shown[provider.name]
        self._tokens.admit_all((held.preset, held.fencing_token) for held in request.held)
        if position:
            reading = self._snapshots.find(_text(position, "snapshot"))
        else:
            reading = await self._read(provider)
            shown.trim(reading.vms)
            reading = reading.of_presets(request.presets)
        start = _whole(position, "offset")
        part = reading.vms[start : start + size]
        token = ""
        if start + size < len(reading.vms):
            snapshot = position.get("snapshot") or self._snapshots.keep(reading)
            token = pages.encode({"snapshot": snapshot, "offset": start + size})
        return iaas_service_pb2.ListVmsResponse(
            vms=shown.messages(part),
            next_page_token=token,
            complete=reading.complete,
            incomplete_reason=reading.incomplete_reason,
            token_floors=reading.token_floors,
        )

    async def GetVms(
        self, request: iaas_service_pb2.GetVmsRequest, context: Context
    ) -> iaas_service_pb2.GetVmsResponse:
        """As the cloud has them now, with their consoles where these are asked for."""
        deadline = Deadline(self._clock, context.time_remaining())
        provider = self._provider(request.provider)
        _refuse_size("vm_ids", request.vm_ids)
        consoles.require_lines(request.console_lines)
        vm_ids = [VmId(vm_id) for vm_id in request.vm_ids]
        found = await provider.cloud.get(vm_ids)
        texts = await consoles.read(
            provider, found, lines=request.console_lines, left=deadline.left
        )
        results = [
            convert.vm_result(provider.name, vm, self._suite_id, console=texts.get(vm_id, ""))
            for vm_id, vm in zip(vm_ids, found, strict=True)
        ]
        return iaas_service_pb2.GetVmsResponse(results=results)

    async def CreateVms(
        self, request: iaas_service_pb2.CreateVmsRequest, context: Context
    ) -> iaas_service_pb2.CreateVmsResponse:
        """Each on its own."""
        deadline, provider = self._deadline(context), self._provider(request.provider)
        _refuse_size("creates", request.creates)
        orders = [convert.order(create, self._suite_id) for create in request.creates]
        made = await self._mutations.create(provider, orders, deadline)
        results = [convert.vm_result(provider.name, vm, self._suite_id) for vm in made]
        return iaas_service_pb2.CreateVmsResponse(results=results)

    async def TerminateVms(
        self, request: iaas_service_pb2.TerminateVmsRequest, context: Context
    ) -> iaas_service_pb2.TerminateVmsResponse:
        """Each through all gates."""
        deadline, provider = self._deadline(context), self._provider(request.provider)
        _refuse_size("terminations", request.terminations)
        mutations = [convert.mutation(message) for message in request.terminations]
        ended = await self._mutations.terminate(provider, mutations, deadline)
        results = [convert.terminate_result(outcome) for outcome in ended]
        return iaas_service_pb2.TerminateVmsResponse(results=results)

    async def RebootVms(
        self, request: iaas_service_pb2.RebootVmsRequest, context: Context
    ) -> iaas_service_pb2.RebootVmsResponse:
        """Each through all gates."""
        deadline, provider = self._deadline(context), self._provider(request.provider)
        _require_trait(provider, Trait.REBOOT)
        _refuse_size("reboots", request.reboots)
        mutations = [convert.mutation(message) for message in request.reboots]
        rebooted = await self._mutations.reboot(provider, mutations, deadline)
        results = [convert.vm_result(provider.name, vm, self._suite_id) for vm in rebooted]
        return iaas_service_pb2.RebootVmsResponse(results=results)

    async def RebuildVms(
        self, request: iaas_service_pb2.RebuildVmsRequest, context: Context
    ) -> iaas_service_pb2.RebuildVmsResponse:
        """Each through all gates."""
        deadline, provider = self._deadline(context), self._provider(request.provider)
        _require_trait(provider, Trait.REBUILD)
        _refuse_size("rebuilds", request.rebuilds)
        mutations = [convert.mutation(message) for message in request.rebuilds]
        spec = convert.rebuild_spec(request)
        rebuilt = await self._mutations.rebuild(
            provider, mutations, deadline, spec=spec, spec_hash=request.spec_hash
        )
        results = [convert.vm_result(provider.name, vm, self._suite_id) for vm in rebuilt]
        return iaas_service_pb2.RebuildVmsResponse(results=results)

    async def ListCatalog(
        self, request: iaas_service_pb2.ListCatalogRequest, context: Context
    ) -> iaas_service_pb2.ListCatalogResponse:
        """In order of kind and name; each page asks the cloud anew."""
        provider = self._provider(request.provider)
        size = pages.clamp(request.page_size, default=_PAGE, maximum=_PAGE)
        start = _whole(pages.decode(request.page_token), "offset")
        catalog = await provider.cloud.catalog()
        entries = sorted(catalog.entries, key=lambda e: (e.kind.value, e.name, e.id))
        return iaas_service_pb2.ListCatalogResponse(
            entries=[convert.catalog_entry(entry) for entry in entries[start : start + size]],
            quotas=[] if start else [convert.quota(quota) for quota in catalog.quotas],
            next_page_token=_next(entries, start + size),
        )

    async def CheckProvider(
        self, request: iaas_service_pb2.CheckProviderRequest, context: Context
    ) -> iaas_service_pb2.CheckProviderResponse:
        """What is wrong with it."""
        found = await checks.of_provider(self._provider(request.provider))
        return iaas_service_pb2.CheckProviderResponse(
            checks=[convert.check_message(check) for check in found]
        )

    async def CheckSpecs(
        self, request: iaas_service_pb2.CheckSpecsRequest, context: Context
    ) -> iaas_service_pb2.CheckSpecsResponse:
        """Each on its own."""
        provider = self._provider(request.provider)
        _refuse_size("specs", request.specs)
        specs = [(each.preset, convert.checked_spec(each.spec)) for each in request.specs]
        told = await checks.of_specs(provider, specs)
        results = [convert.spec_result(each) for each in told]
        return iaas_service_pb2.CheckSpecsResponse(results=results)

    async def WatchVms(
        self, request: iaas_service_pb2.WatchVmsRequest, context: Context
    ) -> AsyncIterator[iaas_service_pb2.WatchVmsResponse]:
        """Changes as they happen, and signs of life between them."""
        provider = self._provider(request.provider)
        _require_trait(provider, Trait.EVENTS, reason="EVENTS_UNSUPPORTED")
        with provider.cloud.watch() as changes:
            yield self._bookmark()
            while True:
                try:
                    async with asyncio.timeout(_BOOKMARK_EVERY.total_seconds()):
                        taken = await changes.next()
                except TimeoutError:
                    yield self._bookmark()
                    continue
                for message in convert.change_messages(provider.name, taken, self._suite_id):
                    yield message

    async def _read(self, provider: Provider) -> Reading:
        reading = await provider.listings.read()
        self._tokens.learn(reading.token_floors)
        self._gates.saw(provider.name, len(reading.vms))
        return reading

    def _provider(self, name: str) -> Provider:
        provider = self._providers.get(name)
        if provider is None:
            known = ", ".join(self._providers)
            raise NotFound(f"there is no provider {name!r}; there are: {known}", provider=name)
        return provider

    def _deadline(self, context: Context) -> Deadline:
        deadline = Deadline(self._clock, context.time_remaining())
        deadline.require()
        return deadline

    def _bookmark(self) -> iaas_service_pb2.WatchVmsResponse:
        bookmark = iaas_service_pb2.WatchVmsBookmark(time=to_timestamp(self._clock.wall()))
        return iaas_service_pb2.WatchVmsResponse(bookmark=bookmark)


def _require_trait(provider: Provider, trait: Trait, *, reason: str | None = None) -> None:
    if trait not in provider.cloud.traits:
        raise Unsupported(
            f"provider {provider.name!r} (driver {provider.driver!r}) is not {trait.value}",
            reason=reason,
            provider=provider.name,
        )


def _refuse_size(field: str, items: Sized) -> None:
    if not 0 < len(items) <= _BATCH:
        sentence = f"must have 1 to {_BATCH:,} items"
        raise BadRequest(f"{field} {sentence}", violations=[Violation(field, sentence)])


def _next(items: Sized, end: int) -> str:
    return pages.encode({"offset": end}) if end < len(items) else ""


def _whole(position: dict[str, Any], key: str) -> int:
    value = position.get(key, 0)
    if not isinstance(value, int) or value < 0:
        raise _foreign_token()
    return value


def _text(position: dict[str, Any], key: str) -> str:
    value = position.get(key)
    if not isinstance(value, str):
        raise _foreign_token()
    return value


def _foreign_token() -> BadRequest:
    violation = Violation("page_token", "must be a next_page_token of the same method")
    return BadRequest("the page token is of another method", violations=[violation])
