"""What one place of a cloud has to offer, read when asked for and kept for a minute.

`resolve` and `catalog` ask.  Collections are read whole, all pages; what no collection shows (a
hidden image, a group of another project) is asked for by its id.  What creates have asked for once
is kept ready as long as somebody calls `freshen`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound, ShepherdError

from ...domain import Quota
from . import offers
from .api import Api, Params
from .choose import Kind, Thing, by_id_or_name, not_found, wrong
from .quotas import metadata_quota, nova_quotas
from .shelf import Shelf

Choose = Callable[[Sequence[Thing]], Thing]

NEWEST: Final = "2.96"
"""The newest microversion of Nova whose answers the driver knows."""

_PAGES: Final[Params] = {"limit": 1000}

IMAGE: Final = Kind(noun="image", field="spec.image", missing="IMAGE_NOT_FOUND")
FAMILY: Final = Kind(
    noun="image family", field="spec.options.image_family", missing="IMAGE_NOT_FOUND"
)
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
        self.limits = Shelf(self._read_limits, clock=clock)
        """Nova's quotas; none while they cannot be read, which never fails."""

    @property
    def where(self) -> str:
        """For people."""
        return str(self.api)

    async def close(self) -> None:
        """Give up what is being read."""
        for shelf in self._shelves():
            await shelf.close()

    def freshen(self) -> None:
        """Read in the background what creates will ask for, where it ages.  Never raises."""
        for shelf in self._shelves():
            shelf.freshen()

    def forget(self) -> None:
        """Read everything anew when somebody asks next."""
        for shelf in self._shelves():
            shelf.forget()

    async def images(self) -> Sequence[Thing]:
        """Images, those included that are not active."""
        return await self._images.things()

    async def flavors(self) -> Sequence[Thing]:
        """Flavors that the project may use."""
        return await self._flavors.things()

    async def zones(self) -> Sequence[Thing]:
        """Availability zones, those included that are not available now."""
        return await self._zones.things()

    async def networks(self) -> Sequence[Thing]:
        """Networks that VMs can be attached to."""
        return await self._networks.find(_all_of)

    async def subnets(self) -> Sequence[Thing]:
        """Subnets, of other projects too."""
        return await self._subnets.find(_all_of)

    async def image(self, text: str) -> Thing:
        """The image of that name or id."""

        def choose(images: Sequence[Thing]) -> Thing:
            return by_id_or_name(IMAGE, _active(images, text), text, where=self.where)

        return await self._found(self._images, choose, text, self._image_by_id)

    async def newest_image(self, family: str) -> Thing:
        """The newest image of a family."""

        def choose(images: Sequence[Thing]) -> Thing:
            members = offers.newest_of_family(images, family)
            if not members:
                known = (image.facts["family"] or image.name for image in images)
                raise not_found(FAMILY, family, known, where=self.where)
            return members[0]

        return await self._images.find(choose)

    async def flavor(self, text: str) -> Thing:
        """The flavor of that name or id."""
        return await self._flavors.find(self._meant(FLAVOR, text))

    async def zone(self, text: str) -> Thing:
        """The zone of that name."""
        return await self._zones.find(self._meant(ZONE, text))

    async def key(self, text: str) -> Thing:
        """The key pair of that name, of the credentials' user."""
        return await self._keys.find(self._meant(KEY, text))

    async def network(self, text: str) -> Thing:
        """The network of that name or id."""
        return await self._networks.find(self._meant(NETWORK, text))

    async def subnet(self, text: str, network: Thing | None) -> Thing:
        """The subnet of that name or id, of a certain network where one is given."""

        def choose(subnets: Sequence[Thing]) -> Thing:
            fitting = [s for s in subnets if network is None or s.facts["network"] == network.id]
            return by_id_or_name(SUBNET, fitting, text, where=self.where)

        return await self._subnets.find(choose)

    async def security_group(self, text: str) -> Thing:
        """The security group of that name or id."""
        choose = self._meant(SECURITY_GROUP, text)
        by_id = self._security_group_by_id
        return await self._found(self._security_groups, choose, text, by_id)

    async def server_group(self, text: str) -> Thing:
        """The server group of that name or id."""
        return await self._server_groups.find(self._meant(SERVER_GROUP, text))

    async def server_groups(self, name: str, *, anew: bool = False) -> Sequence[Thing]:
        """All server groups of that name."""
        if anew:
            self._server_groups.forget()
        groups = await self._server_groups.find(_all_of)
        return [each for each in groups if each.name == name]

    def _meant(self, kind: Kind, text: str) -> Choose:
        return lambda things: by_id_or_name(kind, things, text, where=self.where)

    async def _found(
        self,
        shelf: Shelf[Thing],
        choose: Choose,
        text: str,
        by_id: Callable[[str], Coroutine[Any, Any, Thing | None]],
    ) -> Thing:
        """What no collection shows is there all the same, perhaps."""
        try:
            return await shelf.find(choose)
        except NotFound:
            found = await by_id(text) if _is_id(text) else None
            if found is None:
                raise
            return found

    async def _read_images(self) -> Sequence[Thing]:
        own = (await self.api.access()).project_id
        return [
            offers.image(each, project_id=own, owners=self._owners)
            for each in await self._all("image", "/images", "images", params=_PAGES)
        ]

    async def _read_flavors(self) -> Sequence[Thing]:
        said = await self._all("compute", "/flavors/detail", "flavors", params=_PAGES)
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
        said = await self._all("network", "/networks", "networks", params=_PAGES)
        return offers.networks(said, project_id=own)

    async def _read_subnets(self) -> Sequence[Thing]:
        return offers.subnets(await self._all("network", "/subnets", "subnets", params=_PAGES))

    async def _read_security_groups(self) -> Sequence[Thing]:
        own = (await self.api.access()).project_id
        asked = {"project_id": own, **_PAGES}
        said = await self._all("network", "/security-groups", "security_groups", params=asked)
        return offers.security_groups(said, project_id=own)

    async def _read_server_groups(self) -> Sequence[Thing]:
        version = await self.api.microversion("2.64")
        said: dict[str, dict[str, Any]] = {}
        # No links to a next page: the last page is the one that tells nothing new.
        while True:
            asked = {**_PAGES, "offset": len(said)}
            page = await self.api.get(
                "compute", "/os-server-groups", params=asked, microversion=version
            )
            new = {each["id"]: each for each in page["server_groups"] if each["id"] not in said}
            if not new:
                return [offers.server_group(each) for each in said.values()]
            said |= new

    async def _read_limits(self) -> Sequence[Quota]:
        try:
            said = await self.api.get("compute", "/limits")
            absolute = said["limits"]["absolute"]
            return [*nova_quotas(absolute), *metadata_quota(absolute)]
        except (ShepherdError, KeyError, TypeError):
            return ()

    async def _image_by_id(self, text: str) -> Thing | None:
        try:
            said = await self.api.get("image", f"/images/{text}")
        except NotFound:
            return None
        own = (await self.api.access()).project_id
        image = offers.image(said, project_id=own, owners=self._owners)
        return by_id_or_name(IMAGE, _active([image], text), text, where=self.where)

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
        *,
        params: Params | None = None,
        microversion: str | None = None,
    ) -> list[dict[str, Any]]:
        pages = self.api.pages(service, path, key, params=params, microversion=microversion)
        return [each async for page in pages for each in page]

    def _shelves(self) -> Sequence[Shelf[Thing] | Shelf[Quota]]:
        return (
            self._images,
            self._flavors,
            self._zones,
            self._keys,
            self._networks,
            self._subnets,
            self._security_groups,
            self._server_groups,
            self.limits,
        )


def _all_of(things: Sequence[Thing]) -> Sequence[Thing]:
    return things


def _is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _active(images: Sequence[Thing], text: str) -> Sequence[Thing]:
    """Those that VMs can be made of; BadRequest when the one that is meant is none of them."""
    active = [image for image in images if image.facts["status"] == "active"]
    meant = [image for image in images if text in {image.id, image.name}]
    if meant and not any(image in active for image in meant):
        status = meant[0].facts["status"]
        raise wrong(IMAGE.field, f"image {text!r} is {status}, and VMs are made of active ones")
    return active
