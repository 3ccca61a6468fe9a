"""Server groups that the driver makes: one a preset and policy, known by its name.

`create` asks before it makes a VM.  Nova takes a name twice: of groups of the same name the one
with the lowest id is used by all, so that two who make one at the same time soon agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from vmshepherd_kit.errors import OutcomeUnknown, Unavailable

from .choose import Thing
from .inventory import Inventory


class Groups:
    """The groups of one place."""

    def __init__(self, inventory: Inventory, *, suite_id: str) -> None:
        self._inventory = inventory
        self._suite_id = suite_id
        self._turn = asyncio.Lock()

    def name(self, preset: str, policy: str) -> str:
        """By which the group of a preset is found again, by any process of the suite."""
        return f"vmshepherd {self._suite_id} {preset} {policy}"

    async def ensure(self, preset: str, policy: str) -> str:
        """The id of the preset's group, made if there is none."""
        name = self.name(preset, policy)
        async with self._turn:
            found = await self._inventory.server_groups(name)
            found = found or await self._inventory.server_groups(name, anew=True)
            if not found:
                await self._make(name, policy)
                found = await self._inventory.server_groups(name, anew=True)
        return _agreed(found, name)

    async def _make(self, name: str, policy: str) -> None:
        version = await self._inventory.api.microversion("2.64")
        is_single = tuple(map(int, version.split("."))) >= (2, 64)
        how = {"policy": policy} if is_single else {"policies": [policy]}
        try:
            await self._inventory.api.post(
                "compute",
                "/os-server-groups",
                body={"server_group": {"name": name, **how}},
                microversion=version,
            )
        except OutcomeUnknown as e:
            # Of the VM, which is what was asked for, nothing was done.
            sentence = f"no VM was made: its server group may be there or not: {e.message}"
            raise Unavailable(sentence, reason="CLOUD_FAILING") from e


def _agreed(found: Sequence[Thing], name: str) -> str:
    if not found:
        sentence = f"no VM was made: its server group {name!r} was made, and is not listed yet"
        raise Unavailable(sentence, reason="CLOUD_FAILING")
    return min(group.id for group in found)
