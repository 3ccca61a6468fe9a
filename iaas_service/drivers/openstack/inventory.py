"""What one place of a cloud has to offer, read when asked for and kept for a minute.

`resolve` and `catalog` ask.  Collections are read whole, all pages; what no collection shows (a
hidden image, a group of another project) is asked for by its id.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final, TypeVar

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import BadRequest, NotFound

from . import offers
from .api import Api, Params
from .choose import Kind, Thing, by_id_or_name
from .shelf import Shelf

T = TypeVar("T")
Read = Callable[[], Coroutine[Any, Any, Sequence[Thing]]]

NEWEST: Final = "2.96"
"""The newest microversion of Nova whose answers the driver knows."""

_PAGE: Final = 1000

IMAGE: Final = Kind(noun="image", field="spec.image", missing="IMAGE_NOT_FOUND")
FLAVOR: Final = Kind(noun="flavor", field="spec.flavor", missing="FLAVOR_NOT_FOUND")
ZONE: Final = Kind(noun="availability zone", field="spec.availability_zone")
KEY: Final = Kind(noun="key pair", field="spec.key_name")
SECURITY_GROUP: Final = Kind(noun="security group", field="spec.security_groups")
NETWORK: Final = Kind(noun="network", field="spec.networks")
SUBNET: Final = Kind(noun="subnet", field="spec.networks")
SERVER_GROUP: Final = Kind(noun="server group", field="spec.options.server_group")


class Inventory:
    """The offers of one place; close it when no call comes any more."""

    def __init__(self, api: Api, *, image_owners: Collection[str] = (), clock: Clock) -> None:
        self.api = api
        self._owners = frozenset(image_owners)
        self._images = Shelf(self._read_images, clock=clock)
        self._flavors = Shelf(self._read_flavors, clock=clock)
        self._zones = Shelf(self._read_zones, clock=clock)
        self._keys = Shelf(self._read_keys, clock=clock)
        self._networks = Shelf(self._read_networks, clock=clock)
        self._subnets = Shelf(self._read_subnets, clock=clock)
        self._security_groups = Shelf(self._read_security_groups, clock=clock)
        self._server_groups = Shelf(self._read_server_groups, clock=clock)

    @property
    def where(self) -> str:
        """For people."""
        return str(self.api)

    async def close(self) -> None:
        """Give up what is being read."""
        for shelf in self._shelves():
            await shelf.close()

    async def images(self) -> Sequence[Thing]:
        """Active images, in no order."""
        return await self._images.things()

    async def flavors(self) -> Sequence[Thing]:
        """Flavors that the project may use."""
        return await self._flavors.things()

    async def zones(self) -> Sequence[Thing]:
        """Availability zones, those included that are not available now."""
        return await self._zones.things()

    async def networks(self) -> Sequence[Thing]:
        """Networks that VMs can be attached to."""
        return await self._networks.things()

    async def subnets(self) -> Sequence[Thing]:
        """Subnets, of other projects too."""
        return await self._subnets.things()

    async def image(self, text: str) -> Thing:
        """The image of that name or id."""
        return await self._found(self._images, IMAGE, text, self._image_by_id)

    async def newest_image(self, family: str) -> Thing:
        """The newest image of a family."""

        def choose(images: Sequence[Thing]) -> Thing:
            members = offers.newest_of_family(images, family)
            if not members:
                raise _no_family(family, where=self.where)
            return members[0]

        return await self._images.find(choose)

    async def flavor(self, text: str) -> Thing:
        """The flavor of that name or id."""
        return await self._found(self._flavors, FLAVOR, text)

    async def zone(self, text: str) -> Thing:
        """The zone of that name."""
        return await self._found(self._zones, ZONE, text)

    async def key(self, text: str) -> Thing:
        """The key pair of that name, of the credentials' user."""
        return await self._found(self._keys, KEY, text)

    async def network(self, text: str) -> Thing:
        """The network of that name or id."""
        return await self._found(self._networks, NETWORK, text)

    async def subnet(self, text: str, network: Thing | None) -> Thing:
        """The subnet of that name or id, of a certain network where one is given."""

        def choose(subnets: Sequence[Thing]) -> Thing:
            fitting = [s for s in subnets if network is None or s.facts["network"] == network.id]
            return by_id_or_name(SUBNET, fitting, text, where=self.where)

        return await self._subnets.find(choose)

    async def security_group(self, text: str) -> Thing:
        """The security group of that name or id."""
        return await self._found(
            self._security_groups, SECURITY_GROUP, text, self._security_group_by_id
        )

    async def server_group(self, text: str) -> Thing:
        """The server group of that name or id."""
        return await self._found(self._server_groups, SERVER_GROUP, text)

    async def server_groups(self, name: str, *, anew: bool = False) -> Sequence[Thing]:
        """All server groups of that name."""
        if anew:
            self._server_groups.forget()
        return [each for each in await self._server_groups.things() if each.name == name]

    async def _found(
        self,
        shelf: Shelf[Thing],
        kind: Kind,
        text: str,
        by_id: Callable[[str], Coroutine[Any, Any, Thing | None]] | None = None,
    ) -> Thing:
        try:
            return await shelf.find(lambda all_: by_id_or_name(kind, all_, text, where=self.where))
        except NotFound:
            found = await by_id(text) if by_id is not None and _is_id(text) else None
            if found is None:
                raise
            return found

    async def _read_images(self) -> Sequence[Thing]:
        own = (await self.api.access()).project_id
        return [
            offers.image(each, project_id=own, owners=self._owners)
            for each in await self._all("image", "/images", "images", {"limit": _PAGE})
            if offers.is_usable_image(each)
        ]

    async def _read_flavors(self) -> Sequence[Thing]:
        said = await self._all("compute", "/flavors/detail", "flavors", {"limit": _PAGE})
        return [offers.flavor(each) for each in said]

    async def _read_zones(self) -> Sequence[Thing]:
        said = await self.api.get("compute", "/os-availability-zone")
        return [offers.zone(each) for each in said["availabilityZoneInfo"]]

    async def _read_keys(self) -> Sequence[Thing]:
        # Pages came with 2.35; before, all are told at once.
        version = await self.api.microversion("2.35")
        said = await self._all("compute", "/os-keypairs", "keypairs", microversion=version)
        return [offers.key(each) for each in said]

    async def _read_networks(self) -> Sequence[Thing]:
        own = (await self.api.access()).project_id
        said = await self._all("network", "/networks", "networks", {"limit": _PAGE})
        return offers.networks(said, project_id=own)

    async def _read_subnets(self) -> Sequence[Thing]:
        return offers.subnets(await self._all("network", "/subnets", "subnets", {"limit": _PAGE}))

    async def _read_security_groups(self) -> Sequence[Thing]:
        own = (await self.api.access()).project_id
        asked = {"project_id": own, "limit": _PAGE}
        said = await self._all("network", "/security-groups", "security_groups", asked)
        return offers.security_groups(said, project_id=own)

    async def _read_server_groups(self) -> Sequence[Thing]:
        version = await self.api.microversion("2.64")
        said: list[dict[str, Any]] = []
        # No links to a next page: the last page is the one that is not full.
        while True:
            asked: Params = {"limit": _PAGE, "offset": len(said)}
            page = await self.api.get(
                "compute", "/os-server-groups", params=asked, microversion=version
            )
            said += page["server_groups"]
            if not page["server_groups"]:
                return [offers.server_group(each) for each in said]

    async def _image_by_id(self, text: str) -> Thing | None:
        try:
            said = await self.api.get("image", f"/images/{text}")
        except NotFound:
            return None
        if not offers.is_usable_image(said):
            raise _not_active(said, text)
        own = (await self.api.access()).project_id
        return offers.image(said, project_id=own, owners=self._owners)

    async def _security_group_by_id(self, text: str) -> Thing | None:
        try:
            said = await self.api.get("network", f"/security-groups/{text}")
        except NotFound:
            return None
        own = (await self.api.access()).project_id
        return offers.security_groups([said["security_group"]], project_id=own)[0]

    async def _all(
        self,
        service: str,
        path: str,
        key: str,
        params: Params | None = None,
        microversion: str | None = None,
    ) -> list[dict[str, Any]]:
        pages = self.api.pages(service, path, key, params=params, microversion=microversion)
        return [each async for page in pages for each in page]

    def _shelves(self) -> Sequence[Shelf[Thing]]:
        return (
            self._images,
            self._flavors,
            self._zones,
            self._keys,
            self._networks,
            self._subnets,
            self._security_groups,
            self._server_groups,
        )


def _is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _no_family(family: str, *, where: str) -> NotFound:
    from .choose import not_found  # placeholder

    kind = Kind(noun="image", field="spec.options.image_family", missing="IMAGE_NOT_FOUND")
    return not_found(kind, family, (), where=where)


def _not_active(said: dict[str, Any], text: str) -> BadRequest:
    from .choose import wrong

    return wrong("spec.image", f"image {text} is {said.get('status')}, not active")
