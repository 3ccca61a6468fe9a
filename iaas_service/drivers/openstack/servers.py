"""Servers of Nova as the port knows VMs: pure.

Nova tells an image's id alone, and the name that was ordered can be another image's tomorrow, or
nobody's.  So the order's name is written beside the marker, with the id that it stood for when the
VM was made: as long as the id is that of the server, the name is reported, without asking Glance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ...domain import Address, Vm, VmId
from ...marker import PREFIX
from . import states

IMAGE: Final = f"{PREFIX}image"
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


def image_id(server: Server) -> str:
    """The id of the image that it was made from; "" when nobody knows."""
    told = server.get("image") or {}
    return told.get("id", "") or _imprinted(server)[0]


def vm(server: Server) -> Vm:
    """A server with its metadata."""
    metadata = {key: value for key, value in server["metadata"].items() if key != IMAGE}
    return Vm(
        vm_id=VmId(server["id"]),
        name=server.get("name", ""),
        state=states.state(server),
        cloud_state=states.cloud_state(server),
        create_time=datetime.fromisoformat(server["created"]),
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
