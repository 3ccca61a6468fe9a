"""PresetService over gRPC: one method an RPC, each reads the shelf and translates.

Nothing is decided here.  Every method can be called without a server, with any context.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from preset_service import book, convert
from preset_service.book import Declaration
from preset_service.domain import MAX_TEXT_BYTES, Finding, Preset
from preset_service.fingerprint import spec_hash
from preset_service.library import Library
from preset_service.sync import Sync
from vmshepherd.preset.v1 import preset_pb2 as pb
from vmshepherd.preset.v1 import preset_service_pb2 as service_pb
from vmshepherd.preset.v1.preset_service_pb2_grpc import PresetServiceServicer
from vmshepherd_kit import pages, status
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    ResumeTokenTooOld,
    ShepherdError,
    Throttled,
    Violation,
)

_PAGE: Final = 1000
_MOST_NAMES: Final = 1000

Context = Any


class PresetServicer(PresetServiceServicer):
    """Answers from the library."""

    def __init__(self, library: Library) -> None:
        self._library = library

    async def ListPresets(
        self, request: service_pb.ListPresetsRequest, context: Context
    ) -> service_pb.ListPresetsResponse:
        """All presets in order of their names."""
        size = pages.clamp(request.page_size, default=_PAGE, maximum=_PAGE)
        after = _after(request.page_token)
        presets = self._library.shelf.book.presets
        names = sorted(name for name in presets if name > after)
        found = convert.page((presets[name] for name in names), size)
        token = pages.encode({"after": found[-1].name}) if len(found) < len(names) else ""
        return service_pb.ListPresetsResponse(presets=found, next_page_token=token)

    async def GetPreset(
        self, request: service_pb.GetPresetRequest, context: Context
    ) -> service_pb.GetPresetResponse:
        """One preset by its name."""
        if not request.name:
            raise _missing("name")
        found = self._library.shelf.book.presets.get(request.name)
        if found is None:
            raise NotFound(f"no source declares a preset {request.name!r}", preset=request.name)
        return service_pb.GetPresetResponse(preset=convert.preset(found))

    async def WatchPresets(
        self, request: service_pb.WatchPresetsRequest, context: Context
    ) -> AsyncIterator[service_pb.WatchPresetsResponse]:
        """The snapshot or what came after the token, then every change, each with a bookmark."""
        feed = self._library.shelf.feed
        if request.resume_token:
            batch = feed.since(feed.position_of(request.resume_token))
        else:
            batch = feed.snapshot()
        while True:
            for message in convert.changes(batch, feed.token(batch.position)):
                yield message
            await feed.beyond(batch)
            try:
                batch = feed.since(batch.position)
            except ResumeTokenTooOld as e:
                raise Throttled(
                    "changes were forgotten before they were read: list anew",
                    reason="READER_TOO_SLOW",
                ) from e

    async def ValidatePreset(
        self, request: service_pb.ValidatePresetRequest, context: Context
    ) -> service_pb.ValidatePresetResponse:
        """What would be wrong with a text, and the preset that it would make."""
        if not request.text:
            raise _missing("text")
        if len(request.text.encode()) > MAX_TEXT_BYTES:
            raise _wrong("text", f"must not be longer than {MAX_TEXT_BYTES} bytes")
        sync = self._sync_for(request.source)
        declaration = await sync.workshop.check(request.text, file=request.file)
        taken = self._taken(declaration, sync.name)
        found = sorted([*declaration.findings, *taken], key=lambda finding: finding.line)
        response = service_pb.ValidatePresetResponse(findings=convert.findings(found))
        if not taken and declaration.spec is not None and declaration.name is not None:
            response.preset.CopyFrom(convert.preset(_shown(declaration, sync.name)))
        return response

    async def ListSources(
        self, request: service_pb.ListSourcesRequest, context: Context
    ) -> service_pb.ListSourcesResponse:
        """Every source in order of the configuration."""
        size = pages.clamp(request.page_size, default=_PAGE, maximum=_PAGE)
        names = list(self._library.syncs)
        after = _after(request.page_token)
        start = names.index(after) + 1 if after in names else 0
        shown = names[start : start + size]
        token = pages.encode({"after": shown[-1]}) if start + size < len(names) else ""
        sources = [self._source(name) for name in shown]
        return service_pb.ListSourcesResponse(sources=sources, next_page_token=token)

    async def RefreshSources(
        self, request: service_pb.RefreshSourcesRequest, context: Context
    ) -> service_pb.RefreshSourcesResponse:
        """Read sources now, side by side."""
        if len(request.names) > _MOST_NAMES:
            raise _wrong("names", f"must not be more than {_MOST_NAMES}")
        names = list(request.names) or list(self._library.syncs)
        errors = await asyncio.gather(*(self._refreshed(name) for name in dict.fromkeys(names)))
        by_name = dict(zip(dict.fromkeys(names), errors, strict=True))
        return service_pb.RefreshSourcesResponse(
            results=[self._result(name, by_name[name]) for name in names]
        )

    async def _refreshed(self, name: str) -> ShepherdError | None:
        if name not in self._library.syncs:
            return NotFound(f"there is no source {name!r}", source=name)
        try:
            await self._library.syncs[name].once()
        except ShepherdError as e:
            return e
        return None

    def _result(self, name: str, error: ShepherdError | None) -> service_pb.RefreshSourceResult:
        result = service_pb.RefreshSourceResult(status=status.to_proto(error))
        if name in self._library.syncs:
            result.source.CopyFrom(self._source(name))
        return result

    def _source(self, name: str) -> pb.Source:
        known = self._library.shelf.book
        count = sum(preset.source == name for preset in known.presets.values())
        return convert.source(
            known.sources[name], presets=count, wrong=book.findings_of(known, name)
        )

    def _sync_for(self, source: str) -> Sync:
        name = source or next(iter(self._library.syncs), "")
        if name not in self._library.syncs:
            raise _wrong("source", f"there is no source {name!r}")
        return self._library.syncs[name]

    def _taken(self, declaration: Declaration, source: str) -> list[Finding]:
        """A name that another file holds could not be used; without a file, nobody can tell."""
        holder = self._library.shelf.book.presets.get(declaration.name or "")
        if not declaration.file or holder is None:
            return []
        if (holder.source, holder.file) == (source, declaration.file):
            return []
        return [
            Finding(
                message=f"the name is taken by {holder.file} ({holder.source})",
                file=declaration.file,
                line=declaration.name_line,
                key="name",
            )
        ]


def _shown(declaration: Declaration, source: str) -> Preset:
    spec = declaration.spec
    return Preset(
        name=declaration.name or "",
        spec=None if spec is None else replace(spec, user_data=""),
        source=source,
        file=declaration.file,
        spec_hash="" if spec is None else spec_hash(spec),
    )


def _after(page_token: str) -> str:
    after = pages.decode(page_token).get("after", "")
    if not isinstance(after, str):
        raise _wrong("page_token", "must be a next_page_token of the same method")
    return after


def _missing(field: str) -> BadRequest:
    return _wrong(field, "must not be empty")


def _wrong(field: str, description: str) -> BadRequest:
    return BadRequest(f"{field} {description}", violations=[Violation(field, description)])
