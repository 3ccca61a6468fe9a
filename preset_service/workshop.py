"""The files of one source → what each of them declares, user data included.

`sync` calls it with every reading, and the servicer with texts that are only to be checked.  A text
that was understood once is not parsed again until it changes.  It keeps nothing else, and one
file's fault touches no other file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from preset_service import reading, rendering
from preset_service.book import Declaration
from preset_service.domain import Finding
from preset_service.port import File, PresetSource, Problem, Reference
from preset_service.reading import Draft, Rejected
from preset_service.rendering import Job, Renderer
from preset_service.schema import Defaults
from vmshepherd_kit.clock import Clock

_NOW = timedelta(0)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A draft and its user data, as far as they could be had."""

    draft: Draft
    user_data: str | Problem


class Workshop:
    """Turns the files of one source into declarations."""

    def __init__(self, source: PresetSource, *, defaults: Defaults, clock: Clock) -> None:
        self._source = source
        self._defaults = defaults
        self._clock = clock
        self._renderer = Renderer()
        self._drafts: dict[tuple[str, bytes], Draft | Rejected] = {}

    async def declarations(
        self, files: Sequence[File], held: Mapping[str, str]
    ) -> list[Declaration]:
        """What each file declares, in order; `held` says which name a file had before."""
        drafts = [await self._draft(file) for file in files]
        self._drafts = {
            (file.path, file.content): draft
            for file, draft in zip(files, drafts, strict=True)
            if isinstance(file.content, bytes)
        }
        return await self._completed(drafts, held, self._renderer)

    async def check(self, text: str, *, file: str) -> Declaration:
        """What a text would declare if it stood in that file; nothing is remembered of it."""
        draft = reading.draft(text.encode(), file=file, defaults=self._defaults)
        [declaration] = await self._completed([draft], {}, Renderer())
        return declaration

    async def _draft(self, file: File) -> Draft | Rejected:
        if isinstance(file.content, Problem):
            return reading.unreadable(file.content.message, file=file.path)
        if known := self._drafts.get((file.path, file.content)):
            return known
        # A text takes about a millisecond: others get their turn in between.
        await self._clock.sleep(_NOW)
        return reading.draft(file.content, file=file.path, defaults=self._defaults)

    async def _completed(
        self, drafts: Sequence[Draft | Rejected], held: Mapping[str, str], renderer: Renderer
    ) -> list[Declaration]:
        ready = await self._with_user_data([d for d in drafts if isinstance(d, Draft)], renderer)
        by_file = {each.draft.file: each for each in ready}
        return [
            _declared(by_file[draft.file], held)
            if isinstance(draft, Draft)
            else _broken(draft.file, draft.name, draft.findings, held)
            for draft in drafts
        ]

    async def _with_user_data(self, drafts: Sequence[Draft], renderer: Renderer) -> list[_Ready]:
        fetched = await self._fetched(drafts)
        had = [each for each in fetched if isinstance(each.user_data, str)]
        jobs = [
            Job(text=str(each.user_data), variables=rendering.variables(d.name, d.spec))
            for each in had
            for d in (each.draft,)
        ]
        rendered = dict(zip((e.draft.file for e in had), await renderer.render(jobs), strict=True))
        return [
            replace(each, user_data=rendered.get(each.draft.file, each.user_data))
            for each in fetched
        ]

    async def _fetched(self, drafts: Sequence[Draft]) -> list[_Ready]:
        wanted = list(
            dict.fromkeys(d.user_data for d in drafts if isinstance(d.user_data, Reference))
        )
        contents = await self._source.fetch(wanted) if wanted else []
        texts = {ref: _text(found) for ref, found in zip(wanted, contents, strict=True)}
        return [
            _Ready(d, texts[d.user_data] if isinstance(d.user_data, Reference) else d.user_data)
            for d in drafts
        ]


def _text(content: bytes | Problem) -> str | Problem:
    if isinstance(content, Problem):
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return Problem("the file of the user data is not a text in UTF-8")
    return Problem("the file of the user data holds a NUL character") if "\0" in text else text


def _declared(ready: _Ready, held: Mapping[str, str]) -> Declaration:
    draft = ready.draft
    if isinstance(ready.user_data, Problem):
        finding = Finding(
            message=ready.user_data.message,
            file=draft.file,
            line=draft.user_data_line,
            key="userdata",
        )
        return _broken(draft.file, draft.name, (finding, *draft.warnings), held)
    return Declaration(
        file=draft.file,
        name=draft.name,
        name_line=draft.name_line,
        spec=replace(draft.spec, user_data=ready.user_data),
        findings=draft.warnings,
    )


def _broken(
    file: str, name: str | None, findings: tuple[Finding, ...], held: Mapping[str, str]
) -> Declaration:
    """A broken file keeps the name that it had, whatever it seems to mean now."""
    return Declaration(file=file, name=held.get(file, name), spec=None, findings=findings)
