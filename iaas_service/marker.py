"""The marker, by which a VM is known to be ours, and other metadata that have a meaning.

Pure; the only place that knows the keys.  A VM's name says nothing about whose it is, and a marker
that is not whole and well formed is none: what cannot be read for sure is not ours to touch.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from .domain import Marker, Vm

PREFIX: Final = "vmshepherd_"
SUITE: Final = "vmshepherd_suite"
PRESET: Final = "vmshepherd_preset"
REQUEST: Final = "vmshepherd_request"
TOKEN: Final = "vmshepherd_token"  # noqa: S105  a fencing token is no secret
SPEC: Final = "vmshepherd_spec"
KEYS: Final = frozenset({SUITE, PRESET, REQUEST, TOKEN, SPEC})

# Set by a person, on a VM or for a whole preset: never destroyed.
PROTECTED: Final = "vmshepherd_protected"
# Set by whoever runs the cloud: when the VM will be taken away. Seconds since 1970, or ISO 8601.
TIMED_SHUTDOWN: Final = "iaas_timed_shutdown"

_PRESET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_DIGITS: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
# The store's locks take floors below 2^61: a higher token could never be followed by a newer one.
HIGHEST_TOKEN: Final = 2**61 - 1
# Metadata can be written by anybody in the project: a token near the end of the range would leave
# no room above it, and is no floor for anybody.
HIGHEST_FLOOR: Final = 2**60
_TRUE: Final = frozenset({"true", "yes", "on", "1"})


def write(marker: Marker) -> dict[str, str]:
    """The metadata that make a VM ours."""
    return {
        SUITE: marker.suite_id,
        PRESET: marker.preset,
        REQUEST: marker.request_id,
        TOKEN: str(marker.fencing_token),
        SPEC: marker.spec_hash,
    }


def rewritten(metadata: Mapping[str, str], *, spec_hash: str) -> dict[str, str]:
    """The metadata of a VM that was made anew from another spec; "": from its own."""
    return {**metadata, **({SPEC: spec_hash} if spec_hash else {})}


def read(metadata: Mapping[str, str], suite_id: str) -> Marker | None:
    """The marker of this suite; None: there is none, another suite's, or one not well formed."""
    if metadata.get(SUITE) != suite_id or not metadata.keys() >= KEYS:
        return None
    return _marker(suite_id, metadata[PRESET], metadata[REQUEST], metadata[TOKEN], metadata[SPEC])


# A marker hardly ever changes, and every listing shows it again.
@lru_cache(maxsize=100_000)
def _marker(  # noqa: PLR0917  hashed by position
    suite_id: str, preset: str, request_id: str, token: str, spec_hash: str
) -> Marker | None:
    if not _DIGITS.fullmatch(token) or int(token) > HIGHEST_TOKEN:
        return None
    if not is_preset_name(preset) or not is_request_id(request_id):
        return None
    return Marker(
        suite_id=suite_id,
        preset=preset,
        request_id=request_id,
        fencing_token=int(token),
        spec_hash=spec_hash,
    )


def without(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata that are not the marker's."""
    return {key: value for key, value in metadata.items() if key not in KEYS}


def is_reserved(key: str) -> bool:
    """Whether a key belongs to the suite, so that no preset may set it."""
    return key.startswith(PREFIX) and key != PROTECTED


def is_preset_name(name: str) -> bool:
    """Whether a preset can have this name."""
    return _PRESET_NAME.fullmatch(name) is not None


def is_request_id(text: str) -> bool:
    """Whether this is a UUID in its canonical text."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def is_protected(vm: Vm) -> bool:
    """Whether a person or the cloud itself protects the VM."""
    return vm.locked or vm.metadata.get(PROTECTED, "").strip().lower() in _TRUE


def timed_shutdown(metadata: Mapping[str, str]) -> tuple[datetime | None, str]:
    """When the VM's life ends by announcement, and what is wrong with the announcement."""
    text = metadata.get(TIMED_SHUTDOWN, "").strip()
    if not text:
        return None, ""
    try:
        return _moment(text), ""
    except (ValueError, OverflowError, OSError):
        return None, f"metadata {TIMED_SHUTDOWN} is no time and is ignored: {text[:40]!r}"


def _moment(text: str) -> datetime:
    try:
        seconds = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    return datetime.fromtimestamp(seconds, UTC)
