"""What is done to a server that exists: destroyed, restarted, made anew; and its console.

`cloud` asks, and every gate has been passed.  Each deed is one call that changes something; it is
sent once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from vmshepherd_kit.errors import NotFound, Refused, ShepherdError, Unavailable, Unsupported

from ... import marker
from ...domain import Spec, Vm, VmId, VmState
from . import failures, servers, wishes
from .api import Api
from .choose import Thing
from .inventory import Inventory
from .listing import Reader

# Nova shuts a guest down by asking it, which one that does not run cannot hear.
_HEARS: Final = frozenset({"ACTIVE"})
_STUCK: Final = frozenset({VmState.DELETING, VmState.ERROR})
# What came with which microversion 2.x.
_SETS_USER_DATA: Final = 57
_MAKES_VOLUMES_ANEW: Final = 93


class Deeds:
    """Those of one place."""

    def __init__(
        self, api: Api, reader: Reader, inventory: Inventory, *, is_forceful: bool
    ) -> None:
        self._api = api
        self._reader = reader
        self._inventory = inventory
        self._is_forceful = is_forceful

    async def terminate(self, vm: Vm) -> bool:
        """Destroy it; False when it was gone already."""
        path = f"/servers/{_checked(self._api, vm.vm_id)}"
        try:
            if self._is_forceful and vm.state in _STUCK:
                await self._act(vm.vm_id, {"forceDelete": None})
            else:
                await self._api.delete("compute", path)
        except NotFound as e:
            meant = failures.gone(e, vm.vm_id)
            if meant is e:
                return False
            raise meant from e
        except ShepherdError as e:
            raise _understood(e, vm.vm_id) from e
        return True

    async def reboot(self, vm: Vm) -> Vm:
        """Restart it: softly when its guest may hear it."""
        server = await self._shown(vm.vm_id)
        kind = "SOFT" if server["status"] in _HEARS else "HARD"
        try:
            await self._act(vm.vm_id, {"reboot": {"type": kind}})
        except ShepherdError as e:
            raise _understood(e, vm.vm_id) from e
        state = "REBOOT" if kind == "SOFT" else "HARD_REBOOT"
        return replace(servers.vm(server), state=VmState.TRANSITIONING, cloud_state=state, fault="")

    async def rebuild(self, vm: Vm, spec: Spec, *, spec_hash: str) -> Vm:
        """Make its disk anew from the image, with the user data of the spec."""
        server = await self._shown(vm.vm_id)
        version = await self._reader.version()
        self._require_rebuilds(server, version)
        wanted = await self._rebuilt(server, spec, spec_hash)
        try:
            told = await self._act(vm.vm_id, {"rebuild": wanted}, version)
        except ShepherdError as e:
            raise _understood(e, vm.vm_id) from e
        rebuilt = servers.vm({**server, **told["server"]})
        return replace(rebuilt, state=VmState.PENDING, fault="")

    async def console(self, vm: Vm, lines: int) -> str:
        """The end of what it said."""
        # Nova counts what follows the last newline, mostly nothing, as a line.
        asked = {"os-getConsoleOutput": {"length": lines + 1}}
        told = await self._act(vm.vm_id, asked, changes=False)
        return str(told["output"])

    def _require_rebuilds(self, server: Mapping[str, Any], version: str) -> None:
        """Refuse where Nova would leave something as it was, without a word."""
        what, needs = "new user data need", _SETS_USER_DATA
        if not server["image"]:
            what, needs = f"a new disk of VM {server['id']}, a volume, needs", _MAKES_VOLUMES_ANEW
        if int(version.partition(".")[2]) < needs:
            raise Unsupported(
                f"Nova of {self._api} speaks {version}, and {what} 2.{needs}: replace VMs instead "
                "of rebuilding them"
            )

    async def _rebuilt(
        self, server: Mapping[str, Any], spec: Spec, spec_hash: str
    ) -> Mapping[str, Any]:
        metadata = marker.rewritten(server["metadata"], spec_hash=spec_hash)
        image_id = servers.image_id(server)
        image = await self._image(spec)
        if image is not None:
            image_id = image.id
            metadata.pop(servers.IMAGE, None)
            metadata |= servers.imprint(image.id, spec.image or image.name)
        return {
            "imageRef": image_id,
            "metadata": metadata,
            "user_data": wishes.encoded(spec.user_data) if spec.user_data else None,
        }

    async def _image(self, spec: Spec) -> Thing | None:
        family = wishes.options(spec.options).image_family
        if family:
            return await self._inventory.newest_image(family)
        return await self._inventory.image(spec.image) if spec.image else None

    async def _shown(self, vm_id: VmId) -> Mapping[str, Any]:
        server = await self._reader.server(vm_id)
        if "metadata" not in server:
            raise Unavailable(
                f"VM {vm_id} is in a cell that does not answer; nothing was done",
                reason="CELL_DOWN",
            )
        return server

    async def _act(
        self,
        vm_id: VmId,
        action: Mapping[str, Any],
        microversion: str | None = None,
        *,
        changes: bool = True,
    ) -> Any:
        return await self._api.post(
            "compute",
            f"/servers/{_checked(self._api, vm_id)}/action",
            body=action,
            microversion=microversion,
            changes=changes,
        )


def _checked(api: Api, vm_id: VmId) -> VmId:
    if not servers.is_id(vm_id):
        raise NotFound(f"{api} has no server {vm_id}", vm_id=vm_id)
    return vm_id


def _understood(error: ShepherdError, vm_id: VmId) -> ShepherdError:
    """Of a server that somebody has locked, Nova says so in a conflict."""
    said = error.facts.get("said", "")
    if isinstance(error, Unavailable) and "locked" in said.lower():
        return Refused(
            f"VM {vm_id} is locked in the cloud: {said}; unlock it first (openstack server unlock)",
            reason="PROTECTED",
            vm_id=vm_id,
        )
    return error
