"""Pure: which of the things that a cloud has is meant by a name or an id.

`resolve` asks.  An id is never ambiguous; a name may be, and then nobody guesses: whoever wrote it
is told the ids.  Nothing is found by a part of its name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vmshepherd_kit.errors import BadRequest, NotFound, Violation

_SHOWN: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """An image, a flavor, a network … of a cloud.

    Of several with the same name those of the lowest rank are meant: one's own before those of
    others.
    """

    id: str
    name: str
    rank: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What is looked for, and how it is called in errors."""

    noun: str
    field: str
    """The field of a request that names one."""
    missing: str = "NOT_FOUND"
    """Reason of the error when there is none."""


def by_id_or_name(kind: Kind, things: Iterable[Thing], text: str, *, where: str) -> Thing:
    """The one that is meant.  NotFound naming the nearest; BadRequest when it may be several."""
    known = list(things)
    same_id = [thing for thing in known if thing.id == text]
    if same_id:
        return same_id[0]
    named = lowest(thing for thing in known if thing.name == text)
    if len(named) > 1:
        raise _ambiguous(kind, text, named, where=where)
    if not named:
        raise not_found(kind, text, (thing.name for thing in known), where=where)
    return named[0]


def lowest(things: Iterable[Thing]) -> Sequence[Thing]:
    """Those of the lowest rank."""
    known = list(things)
    rank = min((thing.rank for thing in known), default=0)
    return [thing for thing in known if thing.rank == rank]


def not_found(kind: Kind, text: str, names: Iterable[str], *, where: str) -> NotFound:
    """There is none, and what may have been meant."""
    sentence = f"{where} has no {kind.noun} {text!r}{_hint(kind, text, names)}"
    return NotFound(
        f"{kind.field}: {sentence}",
        reason=kind.missing,
        violations=[Violation(kind.field, sentence)],
        value=text,
    )


def wrong(field: str, sentence: str) -> BadRequest:
    """One field of a spec that cannot be."""
    return BadRequest(f"{field}: {sentence}", violations=[Violation(field, sentence)])


def _ambiguous(kind: Kind, text: str, things: Sequence[Thing], *, where: str) -> BadRequest:
    ids = ", ".join(sorted(thing.id for thing in things))
    return wrong(
        kind.field,
        f"{where} has {len(things)} of the name {text!r} ({kind.noun}s {ids}): say which by its id",
    )


def _hint(kind: Kind, text: str, names: Iterable[str]) -> str:
    known = sorted({name for name in names if name})
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not known:
        return f": it has no {kind.noun} at all"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"; it has {', '.join(known[:_SHOWN])}{more}"
