"""Values of the API as words for people: pure, and safe to print on a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from vmshepherd_kit import stamps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper
    from google.protobuf.timestamp_pb2 import Timestamp

NOTHING: Final = "-"

# So few seconds are told with a decimal.
_FEW: Final = 10


def clean(text: str) -> str:
    """The text without control characters: a cloud's or a VM's words must not drive a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def enum_word(kind: _EnumTypeWrapper[Any], value: int, prefix: str) -> str:
    """`VM_STATUS_NEARBY_SHUTDOWN` as `nearby shutdown`; a value of a newer API by its number."""
    try:
        name = kind.Name(value)
    except ValueError:
        return f"? ({value})"
    return NOTHING if value == 0 else lower(name.removeprefix(prefix))


def lower(name: str) -> str:
    """`AFTER_TIME_SHUTDOWN` as `after time shutdown`."""
    return name.replace("_", " ").lower()


def counts(by_word: Mapping[str, int]) -> str:
    """`{"PENDING": 1, "UNHEALTHY": 2}` as `1 pending, 2 unhealthy`."""
    told = ", ".join(f"{count} {lower(word)}" for word, count in sorted(by_word.items()) if count)
    return told or NOTHING


def span(duration: timedelta) -> str:
    """A length of time as its two greatest units: `3d 4h`, `2m 5s`, `1.4s`, `40ms`."""
    seconds = duration.total_seconds()
    if seconds < 0:
        return "0s"
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < _FEW and seconds != int(seconds):
        return f"{seconds:.1f}s"
    parts = []
    rest = round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, rest = divmod(rest, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return " ".join(parts[:2]) or "0s"


def length(message: Duration) -> str:
    """A Duration as `span` tells it."""
    return span(stamps.from_duration(message))


def ago(stamp: Timestamp, now: datetime) -> str:
    """How long ago something happened; a clock that runs behind shows `0s`."""
    moment = stamps.from_timestamp(stamp)
    return NOTHING if moment is None else span(now - moment)


def until(stamp: Timestamp, now: datetime) -> str:
    """How long until something happens."""
    moment = stamps.from_timestamp(stamp)
    return NOTHING if moment is None else span(moment - now)


def clock_time(stamp: Timestamp) -> str:
    """The moment in the reader's own time zone, to the second."""
    moment = stamps.from_timestamp(stamp)
    return NOTHING if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
