"""datetime ⇄ Timestamp and timedelta ⇄ Duration, for every `convert.py`.

Pure.  A Timestamp that was never set reads as None: nothing of ours happened at the epoch.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from vmshepherd_kit.errors import BadRequest

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration as DurationMessage
    from google.protobuf.timestamp_pb2 import Timestamp as TimestampMessage

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_timestamp(moment: datetime) -> TimestampMessage:
    """The moment, which must be aware, as a Timestamp."""
    if moment.tzinfo is None:
        raise ValueError(f"a moment without a time zone cannot be sent: {moment.isoformat()}")
    seconds, rest = divmod(moment - _EPOCH, timedelta(seconds=1))
    return Timestamp(seconds=seconds, nanos=rest // _MICROSECOND * 1000)


def to_timestamp_if(moment: datetime | None) -> TimestampMessage | None:
    """The same of a moment that there may not be: None leaves a field unset."""
    return None if moment is None else to_timestamp(moment)


def from_timestamp(stamp: TimestampMessage | None) -> datetime | None:
    """The moment in UTC, to the microsecond; None when it was never set."""
    if stamp is None or (stamp.seconds == 0 and stamp.nanos == 0):
        return None
    try:
        return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
    except OverflowError as e:
        raise BadRequest(
            "a timestamp lies outside the years 1 to 9999", reason="BAD_TIMESTAMP"
        ) from e


def to_duration(duration: timedelta) -> DurationMessage:
    """The same length of time as a Duration; both parts bear its sign."""
    sign = -1 if duration < timedelta(0) else 1
    seconds, rest = divmod(abs(duration), timedelta(seconds=1))
    return Duration(seconds=sign * seconds, nanos=sign * (rest // _MICROSECOND) * 1000)


def from_duration(message: DurationMessage) -> timedelta:
    """The same length of time, to the microsecond."""
    try:
        return timedelta(seconds=message.seconds) + timedelta(microseconds=message.nanos / 1000)
    except OverflowError as e:
        raise BadRequest("a duration is longer than any time", reason="BAD_DURATION") from e
