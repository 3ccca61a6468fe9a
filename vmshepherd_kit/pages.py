"""Page sizes and page tokens, for every List method.

A token is opaque to clients, and is checked when it comes back: one that was made up, cut or
altered is a BadRequest, not a surprise.  It is no secret and no signature: whoever reads one may
know what is in it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any, Final

from vmshepherd_kit.errors import BadRequest, Violation

_CHECKSUM: Final = 4
_LONGEST: Final = 4096


def clamp(page_size: int, *, default: int, maximum: int) -> int:
    """The size to use: 0 means the default, more than the maximum means the maximum, less than 0
    is refused.
    """
    if page_size < 0:
        violation = Violation("page_size", "must not be negative")
        raise BadRequest("page_size must not be negative", violations=[violation])
    return min(page_size or default, maximum)


def encode(position: dict[str, Any]) -> str:
    """A token that `decode` turns into the same position; of nothing, the empty token."""
    if not position:
        return ""
    body = json.dumps(position, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")


def decode(token: str) -> dict[str, Any]:
    """The position that was encoded; of the empty token, an empty one; BadRequest when it is not
    ours.
    """
    if not token:
        return {}
    try:
        raw = base64.b64decode(_padded(token), altchars=b"-_", validate=True)
        body = raw[_CHECKSUM:]
        if raw[:_CHECKSUM] != _checksum(body):
            raise _not_ours()
        position = json.loads(body)
    except (binascii.Error, ValueError) as e:
        raise _not_ours() from e
    if not isinstance(position, dict):
        raise _not_ours()
    return position


def _padded(token: str) -> bytes:
    if len(token) > _LONGEST:
        raise _not_ours()
    return token.encode() + b"=" * (-len(token) % 4)


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM)


def _not_ours() -> BadRequest:
    violation = Violation("page_token", "must be a next_page_token of the same method")
    return BadRequest(
        "the page token is not one that was given out",
        reason="BAD_PAGE_TOKEN",
        violations=[violation],
    )
