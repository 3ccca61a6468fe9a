"""What VMs left behind: ports and volumes of VMs that are gone, and volumes that serve nobody.

The checks ask; nothing is ever removed.  A port tells no more than the id of its VM, a volume only
as long as it is attached, and Nova soon forgets whose that was: only of VMs that this process made
is it known.  Nova writes nothing upon a volume that it makes, not even a name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vmshepherd_kit.errors import NotFound, Unavailable

from ... import marker
from . import failures
from .api import Api

Json = Mapping[str, Any]

_NO_PORT: Final = re.compile(r"\bport\b.* could not be found", re.IGNORECASE)
_OWNER: Final = "compute:"
# So many are looked at closely at a time; the next look shows the rest.
_MOST: Final = 50
_AT_ONCE: Final = 8
_UNUSED: Final = frozenset({"available", "error", "error_deleting"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """A thing that is left over."""

    kind: str
    id: str
    about: str
    is_ours: bool
    """Whether it is known to be; of a port that is not, somebody else may know."""


async def find(api: Api, *, suite_id: str, made: Container[str]) -> Sequence[Leak]:
    """All that is found; `made` are the ids of VMs that are known to have been ours."""
    endpoints = (await api.access()).endpoints
    ports = await _ports(api, made) if "network" in endpoints else []
    volumes = await _volumes(api, suite_id, made) if "volume" in endpoints else []
    return [*ports, *volumes]


async def _ports(api: Api, made: Container[str]) -> list[Leak]:
    own = (await api.access()).project_id
    # The ports first: one that is made meanwhile is not among them.
    ports = [
        port
        async for page in api.pages("network", "/ports", "ports", params={"project_id": own})
        for port in page
        if is_of_a_vm(port)
    ]
    listed = await _listed(api)
    # A list may be short of servers: each is asked for by its id.
    suspects = [port for port in ports if port["device_id"] not in listed][:_MOST]
    turns = asyncio.Semaphore(_AT_ONCE)

    async def judged(port: Json) -> bool:
        async with turns:
            return await _is_left_over(api, port)

    verdicts = await asyncio.gather(*map(judged, suspects))
    return [
        port_leak(port, made) for port, is_left in zip(suspects, verdicts, strict=True) if is_left
    ]


async def _listed(api: Api) -> set[str]:
    pages = api.pages("compute", "/servers", "servers")
    return {server["id"] async for page in pages for server in page}


async def _is_left_over(api: Api, port: Json) -> bool:
    """Nova takes a server's ports away before it forgets the server: what is there after that was
    left behind.
    """
    if await _is_there(api, port["device_id"]):
        return False
    try:
        told = await api.get("network", f"/ports/{port['id']}")
    except NotFound as e:
        if _NO_PORT.search(e.facts.get("said", "")):
            return False
        raise _unsaid(port, e) from e
    now: Json = api.part(told, "port", "network")
    return bool(now.get("device_id") == port["device_id"])


async def _is_there(api: Api, server_id: str) -> bool:
    try:
        await api.get("compute", f"/servers/{server_id}")
    except NotFound as e:
        meant = failures.gone(e, server_id)
        if meant is e:
            return False
        raise meant from e
    return True


def _unsaid(port: Json, error: NotFound) -> Unavailable:
    """A 404 that is not Neutron's own says nothing about any port."""
    return Unavailable(
        f"nobody can say whether port {port['id']} exists: {error.message}", reason="CLOUD_FAILING"
    )


async def _volumes(api: Api, suite_id: str, made: Container[str]) -> list[Leak]:
    pages = api.pages("volume", "/volumes/detail", "volumes")
    volumes = [volume async for page in pages for volume in page]
    unused = [
        volume_leak(volume)
        for volume in volumes
        if is_left_volume(volume, suite_id) or is_nameless(volume)
    ]
    return [*unused, *await _orphans(api, volumes, made)]


async def _orphans(api: Api, volumes: Sequence[Json], made: Container[str]) -> list[Leak]:
    """Volumes that are attached to a VM which is gone: Cinder was away when it went."""
    attached = [(volume, vm_id) for volume in volumes if (vm_id := _vm_of(volume))]
    listed = await _listed(api) if attached else set()
    suspects = [(volume, vm_id) for volume, vm_id in attached if vm_id not in listed][:_MOST]
    return [
        orphan_leak(volume, vm_id, made)
        for volume, vm_id in suspects
        if await _is_orphan(api, volume, vm_id)
    ]


async def _is_orphan(api: Api, volume: Json, vm_id: str) -> bool:
    """Nova detaches a server's volumes before it forgets the server, as with ports."""
    if await _is_there(api, vm_id):
        return False
    try:
        told = await api.get("volume", f"/volumes/{volume['id']}")
    except NotFound:
        return False
    return _vm_of(api.part(told, "volume", "volume")) == vm_id


def is_of_a_vm(port: Json) -> bool:
    """Whether Nova attached the port to a server."""
    return str(port.get("device_owner") or "").startswith(_OWNER) and bool(port.get("device_id"))


def is_left_volume(volume: Json, suite_id: str) -> bool:
    """Whether it bears this suite's marker, and nothing uses it."""
    metadata = volume.get("metadata") or {}
    return metadata.get(marker.SUITE) == suite_id and _is_unused(volume)


def is_nameless(volume: Json) -> bool:
    """Whether Nova may have made it for a VM, and nothing uses it; nobody knows whose that was."""
    is_marked = marker.SUITE in (volume.get("metadata") or {})
    return not volume.get("name") and not is_marked and _is_unused(volume)


def _is_unused(volume: Json) -> bool:
    return volume.get("status") in _UNUSED and not volume.get("attachments")


def _vm_of(volume: Json) -> str:
    """The only VM that it is attached to, or ""."""
    attachments = volume.get("attachments") or []
    return str(attachments[0].get("server_id") or "") if len(attachments) == 1 else ""


def port_leak(port: Json, made: Container[str]) -> Leak:
    """A port that was left behind."""
    addresses = ", ".join(each["ip_address"] for each in port.get("fixed_ips") or ())
    return Leak(
        kind="port",
        id=str(port["id"]),
        about=f"{addresses or 'no address'}, of the VM {port['device_id']} that is gone",
        is_ours=port["device_id"] in made,
    )


def volume_leak(volume: Json) -> Leak:
    """A volume that was left behind: ours, if it is marked."""
    metadata = volume.get("metadata") or {}
    image = (volume.get("volume_image_metadata") or {}).get("image_name", "")
    whose = f"of preset {metadata[marker.PRESET]!r}" if marker.PRESET in metadata else "nameless"
    of_image = f", of image {image!r}" if image else ""
    return Leak(
        kind="volume",
        id=str(volume["id"]),
        about=f"{_size(volume)}, {whose}{of_image}",
        is_ours=marker.SUITE in metadata,
    )


def orphan_leak(volume: Json, vm_id: str, made: Container[str]) -> Leak:
    """A volume that Cinder believes to be attached to a VM that is gone."""
    about = f"{_size(volume)}, of the VM {vm_id} that is gone"
    return Leak(kind="volume", id=str(volume["id"]), about=about, is_ours=vm_id in made)


def _size(volume: Json) -> str:
    return f"{volume.get('size')} GiB, {volume.get('status')}"
