"""A timeline -> its text: the inverse of `reading`, for fleets that record themselves.

What is as if nobody had written it is left out, so that a line says what is special about it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from datetime import timedelta
from enum import Enum
from typing import Any

from .timeline import (
    VERSION,
    Appears,
    Asked,
    BootTime,
    ClockSet,
    Edit,
    Gone,
    Head,
    HolderLost,
    ListingChange,
    Others,
    Record,
    Refuses,
    StateChange,
    Timeline,
    VerdictChange,
)

_WORDS: dict[type[Record], str] = {
    Appears: "vm",
    StateChange: "state",
    Gone: "gone",
    VerdictChange: "verdict",
    ListingChange: "listing",
    Refuses: "refuses",
    BootTime: "boot_time",
    Edit: "preset",
    Asked: "operator",
    HolderLost: "holder_lost",
    ClockSet: "clock",
    Others: "others",
}
_NAMES = {"vm_id": "vm"}
# What a reader cannot do without, though it looks like nothing special.
_ALWAYS = {"by", "created", "state", "verdict"}


def write(timeline: Timeline) -> str:
    """The text of a timeline, one line a record."""
    return "".join(f"{line}\n" for line in _lines(timeline))


def _lines(timeline: Timeline) -> Iterator[str]:
    yield _json(_head(timeline.head))
    for record in timeline.records:
        yield _json({"at": _plain(record.at), "what": _WORDS[type(record)], **_facts(record)})


def _head(head: Head) -> dict[str, Any]:
    facts = {
        "timeline": VERSION,
        "preset": head.preset,
        "count": head.count,
        "spec_hash": head.spec_hash,
        "start": head.start.isoformat().replace("+00:00", "Z"),
        "length": _plain(head.length),
        "boot_time": _plain(head.boot_time),
        "idempotent": head.cloud.idempotent,
        "horizon": _plain(head.cloud.horizon),
        "methods": _plain(head.cloud.methods),
        "note": head.note,
    }
    return {name: value for name, value in facts.items() if value not in ("", [])}


def _facts(record: Record) -> dict[str, Any]:
    return {
        _NAMES.get(field.name, field.name): _value(record, field.name)
        for field in fields(record)
        if field.name != "at" and _is_telling(record, field)
    }


def _is_telling(record: Record, field: Field[Any]) -> bool:
    value = getattr(record, field.name)
    return field.name in _ALWAYS or field.default is MISSING or value != field.default


def _value(record: Record, name: str) -> Any:
    value = getattr(record, name)
    if isinstance(record, VerdictChange) and name == "verdict" and value is None:
        return "EACH"
    return _plain(value)


def _plain(value: Any) -> Any:
    """As JSON has it: words for members, seconds for times, whole numbers where they are."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, frozenset):
        return sorted(each.name for each in value)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, float):
        return int(value) if value.is_integer() else round(value, 3)
    return value


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
