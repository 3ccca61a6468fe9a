"""What is known of all presets: the newest declarations of each source, and the last good specs.

Pure.  `shelf` feeds readings into it and publishes the changes that come out.  The rules: a preset
leaves only when a source, read whole, does not declare it any more; a file that is broken keeps
what it last declared; a name that two files claim stays with whom it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from preset_service.domain import Change, Finding, Preset, PresetSpec, Removed
from preset_service.fingerprint import spec_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What one file declares: a spec, or findings that say why it is none."""

    file: str
    name: str | None
    """The name it declares, or seems to mean; None when that cannot be told."""
    spec: PresetSpec | None
    name_line: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source as it was last read whole, and why it cannot be read at present."""

    name: str
    driver: str
    location: str
    revision: str = ""
    synced_time: datetime | None = None
    error: str = ""
    declarations: tuple[Declaration, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Everything that is known."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)

    @property
    def is_synced(self) -> bool:
        """Whether every source has been read whole: only then is what is not here known absent."""
        return not _any_unread(self.sources)


@dataclass(frozen=True, slots=True)
class _Claim:
    source: Source
    declaration: Declaration

    @property
    def place(self) -> tuple[str, str]:
        return self.source.name, self.declaration.file


def restocked(book: Book, sources: Iterable[Source]) -> tuple[Book, list[Change]]:
    """The book with other sources, none of which is read yet: all presets stand until they are.

    Presets whose source is configured no more leave when all others are read, for they may have
    moved; at once, when there is no source at all.
    """
    by_name = {source.name: source for source in sources}
    presets = book.presets if by_name else {}
    gone = [_removed(preset, by_name) for preset in book.presets.values() if not by_name]
    return Book(sources=by_name, presets=presets), list(gone)


def absorb(
    book: Book, source: str, *, revision: str, declarations: Sequence[Declaration], now: datetime
) -> tuple[Book, list[Change]]:
    """The book after a source was read whole, and what has changed by it."""
    read = replace(
        book.sources[source],
        revision=revision,
        synced_time=now,
        error="",
        declarations=tuple(declarations),
    )
    sources = {**book.sources, source: read}
    claims = _claims(sources.values())
    presets: dict[str, Preset] = {}
    changes: list[Change] = []
    for name in sorted({*book.presets, *claims}):
        before = book.presets.get(name)
        after = _settled(name, claims.get(name, []), before, sources=sources, now=now)
        if after is not None:
            presets[name] = after
        if after is None and before is not None:
            changes.append(_removed(before, sources))
        elif after is not None and after is not before:
            changes.append(after)
    return Book(sources=sources, presets=presets), changes


def unreachable(book: Book, source: str, error: str) -> Book:
    """The book after a source could not be read: its presets stay as they are."""
    return replace(
        book, sources={**book.sources, source: replace(book.sources[source], error=error)}
    )


def held_by(book: Book, source: str) -> dict[str, str]:
    """The names that files of a source hold now: file → name."""
    return {p.file: p.name for p in book.presets.values() if p.source == source}


def findings_of(book: Book, source: str) -> list[Finding]:
    """Everything that is wrong in a source, files included that declare no known preset."""
    own = [f for each in book.sources[source].declarations for f in each.findings]
    files = {each.file for each in book.sources[source].declarations}
    conflicts = [
        finding
        for rivals in _conflicts(book)
        for claim, finding in zip(rivals, _twice(rivals), strict=True)
        if claim.source.name == source and claim.declaration.file in files
    ]
    return sorted([*own, *conflicts], key=lambda finding: (finding.file, finding.line))


def _claims(sources: Iterable[Source]) -> dict[str, list[_Claim]]:
    claims: dict[str, list[_Claim]] = {}
    for source in sources:
        for declaration in source.declarations:
            if declaration.name is not None:
                claims.setdefault(declaration.name, []).append(_Claim(source, declaration))
    return claims


def _conflicts(book: Book) -> Iterator[list[_Claim]]:
    for name, claims in _claims(book.sources.values()).items():
        rivals = _rivals(claims, book.presets.get(name))
        if len(rivals) > 1:
            yield rivals


def _rivals(claims: Sequence[_Claim], before: Preset | None) -> list[_Claim]:
    """Whoever may own the name: all good declarations, and the holder's even when it is broken.

    A broken file that never held the name cannot take it from anybody: it may only seem to mean it.
    """
    holder = (before.source, before.file) if before is not None and before.spec else None
    return [c for c in claims if c.declaration.spec is not None or c.place == holder]


def _settled(
    name: str,
    claims: Sequence[_Claim],
    before: Preset | None,
    *,
    sources: Mapping[str, Source],
    now: datetime,
) -> Preset | None:
    if before is not None and _is_unread(before.source, sources):
        return before
    rivals = _rivals(claims, before)
    if len(rivals) > 1:
        return _kept(name, rivals[0], before, _twice(rivals))
    if rivals and rivals[0].declaration.spec is not None:
        return _fresh(name, rivals[0], before, spec=rivals[0].declaration.spec, now=now)
    if claims:
        claim = (rivals or claims)[0]
        return _kept(name, claim, before, claim.declaration.findings, moves=not rivals)
    if before is not None and before.source not in sources and _any_unread(sources):
        return before
    return None


def _is_unread(source: str, sources: Mapping[str, Source]) -> bool:
    return source in sources and sources[source].synced_time is None


def _any_unread(sources: Mapping[str, Source]) -> bool:
    return any(source.synced_time is None for source in sources.values())


def _fresh(
    name: str, claim: _Claim, before: Preset | None, *, spec: PresetSpec, now: datetime
) -> Preset:
    is_same = before is not None and before.spec == spec
    after = Preset(
        name=name,
        spec=spec,
        source=claim.source.name,
        file=claim.declaration.file,
        revision=before.revision if before and is_same else claim.source.revision,
        spec_hash=before.spec_hash if before and is_same else spec_hash(spec),
        changed_time=before.changed_time if before and is_same else now,
        findings=claim.declaration.findings,
    )
    return before if before == after else after


def _kept(
    name: str,
    claim: _Claim,
    before: Preset | None,
    findings: tuple[Finding, ...],
    *,
    moves: bool = False,
) -> Preset:
    """The last good one with what is wrong now; `moves`: its own file is gone, another means it."""
    source, file = claim.place
    if before is None or before.spec is None:
        after = Preset(name=name, spec=None, source=source, file=file, findings=findings)
    elif moves:
        after = replace(before, source=source, file=file, findings=findings)
    else:
        after = replace(before, findings=findings)
    return before if before == after else after


def _twice(rivals: Sequence[_Claim]) -> tuple[Finding, ...]:
    """A finding for each rival, in order."""
    places = [f"{claim.declaration.file} ({claim.source.name})" for claim in rivals]
    return tuple(
        Finding(
            message=f"the name {claim.declaration.name!r} is declared by "
            + " and ".join(places)
            + ": rename all but one; until then the last good one stays",
            file=claim.declaration.file,
            line=claim.declaration.name_line,
            key="name",
        )
        for claim in rivals
    )


def _removed(before: Preset, sources: Mapping[str, Source]) -> Removed:
    source = sources.get(before.source)
    revision = source.revision if source else ""
    return Removed(name=before.name, source=before.source, revision=revision)
