"""What answers of OpenStack's services mean: the content, or an error an operator can act upon.

Pure.  Nova's own words stand in each error, verbatim but for user data that it quotes.  Of a call
that changes something, an answer that proves nothing was done is the error of its kind; any other
leaves the outcome unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from vmshepherd_kit.errors import (
    BadRequest,
    Denied,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    ShepherdError,
    Throttled,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

_LONGEST: Final = 500
_QUOTA: Final = re.compile(r"quota|limit exceeded|overlimit", re.IGNORECASE)
# A number of this very request, by which the same refusal would look like a new one.
_NUMBER: Final = re.compile(r" ?\(Request-ID: [^)]*\)")
_NO_SERVER: Final = re.compile(r"\binstance\b.* could not be found", re.IGNORECASE)
REST: Final = timedelta(seconds=5)
"""How long a service is left alone that does not say how long it wants to be."""
# A service whose answers are a gateway's: it is not there, or cannot work.
GATEWAY: Final = frozenset({502, 503, 504})


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What is asked, in words for people: `Nova of osk`, `GET /servers`."""

    whom: str
    what: str
    changes: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a service said."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def content(call: Call, answer: Answer, now: datetime) -> Any:
    """The JSON of a good answer, None where there is none; of any other, the error is raised."""
    if answer.status >= 300 and answer.status != 300:  # noqa: PLR2004  300 lists versions
        raise refusal(call, answer, now)
    if not answer.body.strip():
        return None
    try:
        return json.loads(answer.body)
    except ValueError as e:
        raise unproven(call, "answered something that is no JSON") from e


def unproven(call: Call, how: str, *, retry_after: timedelta | None = None) -> ShepherdError:
    """Of a call that was sent and not answered well: nobody knows what it did."""
    sentence = f"{call.whom} {how} ({call.what})"
    if call.changes:
        return OutcomeUnknown(f"{sentence}; it may have been done", retry_after=retry_after)
    return Unavailable(
        f"{sentence}; it goes on by itself", reason="CLOUD_FAILING", retry_after=retry_after
    )


def crowded(call: Call, how: str) -> Throttled:
    """Of a call for which there was no connection: the cloud was not asked."""
    return Throttled(
        f"{call.whom} was not asked, since {how} ({call.what}); nothing was done. The provider's "
        "options `connections` and `parallel_calls` say how many there may be",
        reason="HELD_BACK",
        retry_after=REST,
    )


def unsent(call: Call, how: str) -> Unavailable:
    """Of a call that never left."""
    return Unavailable(
        f"{call.whom} is out of reach: {how} ({call.what}); nothing was done, and it goes on by "
        "itself",
        reason="CLOUD_UNREACHABLE",
    )


def refusal(call: Call, answer: Answer, now: datetime) -> ShepherdError:
    """The error that a bad answer means."""
    words = said(answer.body)
    how = f"answered {answer.status}" + (f": {words}" if words else "")
    wait = retry_after(answer.headers, now)
    kind = _kind(answer.status, words)
    if answer.status == 503 and wait and not call.changes:  # noqa: PLR2004
        kind = Throttled
    if kind is None:
        return unproven(call, how, retry_after=wait)
    return kind(
        f"{call.whom} {how} ({call.what})",
        reason="CLOUD_BUSY" if kind is Unavailable else None,
        retry_after=(wait or REST) if kind is Throttled else wait,
        http_status=str(answer.status),
        said=words,
    )


def gone(error: NotFound, vm_id: str) -> NotFound | Unavailable:
    """What a 404 to a question about a server means: that it is gone, if Nova says so of it.

    A gateway's 404, or a catalogue without Nova, says nothing about any server.
    """
    if _NO_SERVER.search(error.facts.get("said", "")):
        return error
    return Unavailable(
        f"nobody can say whether VM {vm_id} exists, and nothing was done: {error.message}",
        reason="CLOUD_FAILING",
        vm_id=vm_id,
    )


def _kind(status: int, words: str) -> type[ShepherdError] | None:
    """What proves that nothing was done; None: nothing is proven."""
    if status in {403, 409, 413} and _QUOTA.search(words):
        return QuotaExceeded
    if status in _KINDS:
        return _KINDS[status]
    return BadRequest if 400 <= status < 500 else None  # noqa: PLR2004


_KINDS: Final[Mapping[int, type[ShepherdError]]] = {
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    405: Unsupported,
    406: Unsupported,
    # A task is under way that bars the one that was asked for.
    409: Unavailable,
    410: NotFound,
    413: Throttled,
    429: Throttled,
}


def said(body: bytes) -> str:
    """The sentence within an error's body, whichever service wrote it; "" when there is none."""
    try:
        words = _message(json.loads(body))
    except ValueError:
        words = re.sub(r"<[^>]*>", " ", body.decode(errors="replace"))
    return _without_values(" ".join(words.split()))[:_LONGEST]


def words(error: BaseException) -> str:
    """What a refused login says, on one line, the same each time; keystoneauth quotes no secrets
    in it.
    """
    return " ".join(_NUMBER.sub("", str(error)).split())[:300]


def _message(body: object) -> str:
    """`{"badRequest": {"message": …}}` of Nova, and what the others make of it."""
    if isinstance(body, list):
        return "; ".join(filter(None, map(_message, body)))
    if not isinstance(body, dict):
        return ""
    for key in ("message", "detail"):
        if isinstance(body.get(key), str) and body[key]:
            return str(body[key])
    inner = (value for value in body.values() if isinstance(value, dict | list))
    return next(filter(None, map(_message, inner)), "")


def _without_values(words: str) -> str:
    """Nova quotes what it refuses: user data may hold secrets."""
    if "user_data" in words and "Value:" in words:
        return words.partition("Value:")[0].strip()
    return words


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long the service wants to be left alone: seconds, or a date."""
    text = next((v for k, v in headers.items() if k.lower() == "retry-after"), "").strip()
    if not text:
        return None
    if text.isdecimal():
        return timedelta(seconds=min(int(text), 86400))
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(aware - now, timedelta(0))
