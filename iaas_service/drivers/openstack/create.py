"""Making a VM: one POST, which bears the marker from the first moment, and one reading of it.

`cloud` calls `create` for each order.  Nothing is sent before the whole spec is resolved, nor when
the quotas have no room, and nothing is ever sent twice.  A host that has no room shows later, as a
VM in ERROR.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import (
    BadRequest,
    Denied,
    OutcomeUnknown,
    QuotaExceeded,
    ShepherdError,
    Throttled,
    Unavailable,
)

from ... import marker
from ...domain import Order
from . import servers, wishes
from .api import Api, Json
from .choose import Thing
from .groups import Groups
from .inventory import Inventory
from .resolve import Interface, Resolved, Resolver
from .room import Room

_CONFLICT: Final = "409"
_TOO_LARGE: Final = "413"
_REMEMBERED: Final = 10_000


class Creator:
    """Makes the VMs of one place."""

    def __init__(self, api: Api, inventory: Inventory, *, suite_id: str, clock: Clock) -> None:
        self._api = api
        self._inventory = inventory
        self._room = Room(inventory, clock)
        self._groups = Groups(inventory, suite_id=suite_id)
        self.resolver = Resolver(inventory)
        self.made: deque[str] = deque(maxlen=_REMEMBERED)
        """Ids of VMs that were made here, the newest last."""

    async def create(self, order: Order) -> Json:
        """The server as Nova shows it right after it was made.

        Any error but OutcomeUnknown promises that none was made.
        """
        # The limits are read meanwhile; `Room` asks for them.
        resolved, _ = await asyncio.gather(
            self.resolver.resolve(order.spec), self._inventory.limits.things()
        )
        async with self._room.taken(resolved.flavor):
            made = await self._order(order, resolved)
        vm_id = made["server"]["id"]
        self.made.append(vm_id)
        return await self._read(vm_id, resolved.microversion)

    async def _order(self, order: Order, resolved: Resolved) -> Json:
        group = resolved.server_group.id if resolved.server_group else ""
        if resolved.policy:
            group = await self._groups.ensure(order.marker.preset, resolved.policy)
        wanted = body(order, resolved, group=group)
        wanted["server"]["metadata"] |= servers.birth(self._api.now())
        return await self._post(wanted, resolved.microversion)

    async def _post(self, wanted: Json, microversion: str) -> Json:
        try:
            return await self._api.post(
                "compute", "/servers", body=wanted, microversion=microversion
            )
        except ShepherdError as e:
            if isinstance(e, BadRequest):
                # Perhaps of something that was there a minute ago.
                self._inventory.forget()
            meant = understood(e)
            if isinstance(meant, QuotaExceeded):
                # Others have used it since it was read.
                self._inventory.limits.forget()
            raise meant from e

    async def _read(self, vm_id: str, microversion: str) -> Json:
        try:
            shown = await self._api.get("compute", f"/servers/{vm_id}", microversion=microversion)
        except ShepherdError as e:
            sentence = f"VM {vm_id} was ordered, and cannot be read yet: {e.message}"
            raise OutcomeUnknown(sentence, vm_id=vm_id) from e
        return shown["server"]


def body(order: Order, resolved: Resolved, *, group: str) -> Json:
    """What Nova is told; `group` is the id of the VM's server group, "" for none."""
    server: dict[str, Any] = {
        "name": order.name,
        "flavorRef": resolved.flavor.id,
        "networks": resolved.networks or [_network(each) for each in resolved.interfaces],
        "metadata": _metadata(order, resolved.image),
        **_disk(resolved),
        **_written(order, resolved),
    }
    hints = {"os:scheduler_hints": {"group": group}} if group else {}
    return {"server": server, **hints}


def understood(error: ShepherdError) -> ShepherdError:
    """What an error of Nova means for a create; its own words stay."""
    status, said = error.facts.get("http_status", ""), error.facts.get("said", "")
    if isinstance(error, Denied) and "exceeded" in said.lower():
        return QuotaExceeded(error.message, http_status=status, said=said)
    # Nova says so of networks, groups, addresses and names that exclude the VM: no task of another
    # bars it, and waiting changes nothing.
    if isinstance(error, Unavailable) and status == _CONFLICT:
        return BadRequest(error.message, http_status=status, said=said)
    # Said of a body that will never fit, and elsewhere of callers who ask too often.
    if isinstance(error, Throttled) and status == _TOO_LARGE and "too large" in said.lower():
        return BadRequest(
            f"{error.message}; shorten user data or metadata", http_status=status, said=said
        )
    return error


def _metadata(order: Order, image: Thing) -> dict[str, str]:
    """What the preset wants, and above it what nothing overrides."""
    imprint = servers.imprint(image.id, order.spec.image or image.name)
    return {**order.spec.metadata, **imprint, **marker.write(order.marker)}


def _network(interface: Interface) -> Json:
    fixed = {"fixed_ip": interface.fixed_ip} if interface.fixed_ip else {}
    return {"uuid": interface.network.id, **fixed}


def _disk(resolved: Resolved) -> Json:
    volume = resolved.boot_volume
    if volume is None:
        return {"imageRef": resolved.image.id}
    kind = {"volume_type": volume.type} if volume.type else {}
    device = {
        "boot_index": 0,
        "uuid": resolved.image.id,
        "source_type": "image",
        "destination_type": "volume",
        "volume_size": volume.size,
        "delete_on_termination": volume.delete_on_termination,
        **kind,
    }
    return {"block_device_mapping_v2": [device]}


def _written(order: Order, resolved: Resolved) -> Json:
    """What stands in the request only where it is wanted."""
    wanted = {
        "security_groups": [{"name": group.id} for group in resolved.security_groups],
        "availability_zone": resolved.zone,
        "key_name": resolved.key_name,
        "user_data": wishes.encoded(order.spec.user_data),
        "tags": list(resolved.tags),
        "config_drive": resolved.config_drive,
    }
    return {key: value for key, value in wanted.items() if value not in ("", [], None)}
