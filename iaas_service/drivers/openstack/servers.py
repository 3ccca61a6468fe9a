"""Servers of Nova as the port knows VMs: pure.

Two things that Nova cannot tell are written beside the marker.  The image's name as it was ordered:
Nova has the id alone, and the name can be another image's tomorrow, or nobody's.  And the time of
the order: Nova's own creation time changes once, when the server reaches its cell, and by the
creation time a VM is known to be the one that is meant.  Neither is believed against Nova's word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vmshepherd_kit.errors import Unavailable

from ...domain import Address, Vm, VmId
from ...marker import PREFIX
from . import states

IMAGE: Final = f"{PREFIX}image"
BIRTH: Final = f"{PREFIX}birth"
# Between an order and the moment when its server reaches a cell; clocks differ, too.
_LONGEST_LABOUR: Final = timedelta(hours=1)
_LONGEST: Final = 255

# What stands in a path must not lead elsewhere.
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)

Server = Mapping[str, Any]


def is_id(text: str) -> bool:
    """Whether a server can have this id."""
    return _ID.fullmatch(text) is not None


def imprint(image_id: str, ordered: str) -> dict[str, str]:
    """Metadata, for a create or a rebuild, from which `vm` knows the image as it was ordered."""
    text = f"{image_id} {ordered}"
    return {IMAGE: text} if len(text.encode()) <= _LONGEST else {}


def birth(now: datetime) -> dict[str, str]:
    """Metadata, for a create, from which `vm` knows when it was ordered."""
    return {BIRTH: now.astimezone(UTC).isoformat(timespec="milliseconds")}


def image_id(server: Server) -> str:
    """The id of the image that it was made from; "" when nobody knows."""
    told = server.get("image") or {}
    return told.get("id", "") or _imprinted(server)[0]


def vm(server: Server) -> Vm:
    """A server with its metadata.  Unavailable when it is told in a form that Nova does not use."""
    try:
        return _vm(server)
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise Unavailable(
            f"the cloud tells of server {server.get('id', '')} in a form that is not understood "
            f"({type(e).__name__}: {e})",
            reason="CLOUD_FAILING",
        ) from e


def _vm(server: Server) -> Vm:
    told = server["metadata"].items()
    metadata = {key: value for key, value in told if key not in {IMAGE, BIRTH}}
    return Vm(
        vm_id=VmId(server["id"]),
        name=server.get("name", ""),
        state=states.state(server),
        cloud_state=states.cloud_state(server),
        create_time=_create_time(server),
        metadata=metadata,
        fault=_fault(server),
        addresses=_addresses(server),
        image=_image(server),
        flavor=_flavor(server),
        zone=server.get("OS-EXT-AZ:availability_zone") or "",
        host=server.get("OS-EXT-SRV-ATTR:host") or server.get("hostId") or "",
        key_name=server.get("key_name") or "",
        locked=server.get("locked") is True,
    )


def _create_time(server: Server) -> datetime:
    created = datetime.fromisoformat(server["created"])
    try:
        born = datetime.fromisoformat(server["metadata"].get(BIRTH, ""))
        is_near = abs(created - born) <= _LONGEST_LABOUR
    except (ValueError, TypeError):
        return created
    return born if is_near else created


def _image(server: Server) -> str:
    actual = (server.get("image") or {}).get("id", "")
    imprinted, ordered = _imprinted(server)
    # Made from a volume, a server tells no image.
    return ordered if imprinted and actual in {imprinted, ""} else actual


def _imprinted(server: Server) -> tuple[str, str]:
    found, _, ordered = str(server["metadata"].get(IMAGE, "")).partition(" ")
    return (found, ordered) if ordered else ("", "")


def _flavor(server: Server) -> str:
    flavor = server.get("flavor") or {}
    # The name from 2.47 on; before, the id was all.
    return str(flavor.get("original_name") or flavor.get("id") or "")


def _fault(server: Server) -> str:
    fault = server.get("fault") or {}
    return str(fault.get("message") or "")


def _addresses(server: Server) -> tuple[Address, ...]:
    return tuple(
        Address(
            ip=each["addr"],
            network=network,
            floating=each.get("OS-EXT-IPS:type") == "floating",
        )
        for network, told in (server.get("addresses") or {}).items()
        for each in told
    )
