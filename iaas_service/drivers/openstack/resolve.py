"""From a spec to what Nova is told: every name looked up and judged before anything is made.

`create` and the checks of `vmshepherd doctor` ask.  Whatever is wrong is told at once, each fault
with its field; so a misspelt flavor costs one clear error and no request to make a VM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final, TypeVar

from vmshepherd_kit.errors import (
    BadRequest,
    NoCapacity,
    Recovery,
    ShepherdError,
    Unsupported,
)

from ...domain import Attachment, Spec
from ...marker import KEYS
from . import servers, wishes
from .choose import Thing, wrong
from .inventory import NEWEST, Inventory
from .quotas import METADATA
from .wishes import POLICIES, BootVolume, PresetOptions

T = TypeVar("T")

# The marker and what `servers` writes beside it.
_OWN: Final = len({*KEYS, servers.IMAGE, servers.BIRTH})
_NETWORKS: Final = "spec.networks"
# What came with which microversion of Nova.
_TAGS: Final = (2, 52)
_NO_NETWORK: Final = (2, 37)
_VOLUME_TYPE: Final = (2, 67)
_SOFT_POLICIES: Final = (2, 15)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interface:
    """One interface of a VM to be made."""

    network: Thing
    fixed_ip: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A spec whose names are looked up; nothing of it is made yet."""

    microversion: str
    image: Thing
    flavor: Thing
    interfaces: tuple[Interface, ...]
    """None where `networks` says so in a word."""
    networks: str
    security_groups: tuple[Thing, ...]
    zone: str
    key_name: str
    server_group: Thing | None
    policy: str
    """Of the group that is to be found or made for the preset; "" where there is none."""
    boot_volume: BootVolume | None
    config_drive: bool | None
    tags: tuple[str, ...]


class Resolver:
    """Looks up the names of specs in one place."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    async def resolve(self, spec: Spec) -> Resolved:
        """BadRequest, NotFound, Unsupported or NoCapacity name what cannot be; others the cloud."""
        options = wishes.options(spec.options)
        wishes.require_fitting(spec, options)
        version = await self._inventory.api.microversion(NEWEST)
        _require_version(version, options)
        if options.boot_volume:
            await self._require_volumes()
        image, flavor, interfaces, groups, zone, key, server_group, _ = await _all(
            self._image(spec, options),
            self._inventory.flavor(spec.flavor),
            self._interfaces(spec, options),
            self._security_groups(spec),
            self._zone(spec),
            self._key(spec),
            self._server_group(options),
            self._require_few_metadata(spec),
        )
        _require_room(image, flavor, options)
        return Resolved(
            microversion=version,
            image=image,
            flavor=flavor,
            interfaces=interfaces,
            networks=options.networks or "",
            security_groups=groups,
            zone=zone,
            key_name=key,
            server_group=server_group,
            policy=options.server_group or "" if server_group is None else "",
            boot_volume=options.boot_volume,
            config_drive=options.config_drive,
            tags=options.tags,
        )

    async def _require_few_metadata(self, spec: Spec) -> None:
        limits = await self._inventory.limits.things()
        most = next((each.limit for each in limits if each.resource == METADATA), None)
        if most is not None and len(spec.metadata) + _OWN > most:
            raise wrong(
                "spec.metadata",
                f"has {len(spec.metadata)} items, and Nova takes {most} of a VM, {_OWN} of which "
                "are the suite's own",
            )

    async def _require_volumes(self) -> None:
        if "volume" not in (await self._inventory.api.access()).endpoints:
            sentence = f"{self._inventory.where} has no volume service (Cinder)"
            raise wrong("spec.options.boot_volume", f"{sentence}: leave it out")

    async def _image(self, spec: Spec, options: PresetOptions) -> Thing:
        if options.image_family:
            return await self._inventory.newest_image(options.image_family)
        return await self._inventory.image(spec.image)

    async def _interfaces(self, spec: Spec, options: PresetOptions) -> tuple[Interface, ...]:
        if options.networks:
            return ()
        if spec.networks:
            found = await _all(*(self._network(each) for each in spec.networks))
        else:
            found = [await self._only_network()]
        for network in found:
            _require_subnet(network)
        if options.fixed_ip is None:
            return tuple(Interface(network=network) for network in found)
        address = str(options.fixed_ip)
        await self._require_within(address, found[0])
        return (Interface(network=found[0], fixed_ip=address),)

    async def _network(self, attachment: Attachment) -> Thing:
        network = None
        if attachment.network:
            network = await self._inventory.network(attachment.network)
        if not attachment.subnet:
            assert network is not None, "the contract wants one of both"  # noqa: S101
            return network
        subnet = await self._inventory.subnet(attachment.subnet, network)
        network = network or await self._inventory.network(subnet.facts["network"])
        await self._require_only(subnet, network)
        return network

    async def _require_only(self, subnet: Thing, network: Thing) -> None:
        """Nova takes any subnet of a network: that one is meant can only be kept to when it is the
        only one of its kind.
        """
        others = [
            each
            for each in await self._inventory.subnets()
            if each.facts["network"] == network.id
            and each.facts["version"] == subnet.facts["version"]
            and each.id != subnet.id
        ]
        if others:
            names = ", ".join(sorted(each.name or each.id for each in (subnet, *others)))
            raise wrong(
                _NETWORKS,
                f"network {network.name!r} has the subnets {names}, and Nova chooses among them: "
                "name the network, or give the address by the option fixed_ip",
            )

    async def _only_network(self) -> Thing:
        """The network of a spec that names none: Nova's own rule, told before and in full."""
        networks = await self._inventory.networks()
        if len(networks) == 1:
            return networks[0]
        if not networks:
            sentence = "the project has no network: make one, or say `networks: none` beneath iaas"
            raise wrong(_NETWORKS, f"{self._inventory.where}: {sentence}")
        names = ", ".join(sorted(each.name or each.id for each in networks))
        raise wrong(_NETWORKS, f"{self._inventory.where} has several, name one of them: {names}")

    async def _require_within(self, address: str, network: Thing) -> None:
        ranges = [
            each.facts["cidr"]
            for each in await self._inventory.subnets()
            if each.facts["network"] == network.id
        ]
        if not any(_is_of_a_host(address, each) for each in ranges if each):
            known = ", ".join(ranges) or "none"
            sentence = (
                f"{address} is no address for a VM in a subnet of network {network.name!r}; it has "
                f"{known}"
            )
            raise wrong("spec.options.fixed_ip", sentence)

    async def _security_groups(self, spec: Spec) -> tuple[Thing, ...]:
        return tuple(
            await _all(*(self._inventory.security_group(each) for each in spec.security_groups))
        )

    async def _zone(self, spec: Spec) -> str:
        if not spec.availability_zone:
            return ""
        zone = await self._inventory.zone(spec.availability_zone)
        if not zone.facts["available"]:
            sentence = f"{self._inventory.where}: zone {zone.name!r} is not available now"
            raise NoCapacity(sentence, zone=zone.name)
        return zone.name

    async def _key(self, spec: Spec) -> str:
        return (await self._inventory.key(spec.key_name)).name if spec.key_name else ""

    async def _server_group(self, options: PresetOptions) -> Thing | None:
        if not options.server_group or options.server_group in POLICIES:
            return None
        return await self._inventory.server_group(options.server_group)


async def _all(*lookups: Coroutine[Any, Any, Any]) -> Sequence[Any]:
    """All answers; of several faults of the spec each is told, but a cloud that fails comes
    first.
    """
    answers = await asyncio.gather(*lookups, return_exceptions=True)
    failures = [each for each in answers if isinstance(each, BaseException)]
    for failure in failures:
        if not isinstance(failure, ShepherdError) or failure.then is not Recovery.FIX:
            raise failure
    faults = [each for each in failures if isinstance(each, ShepherdError)]
    if len(faults) == 1:
        raise faults[0]
    if faults:
        found = [violation for fault in faults for violation in fault.violations]
        raise BadRequest("; ".join(fault.message for fault in faults), violations=found)
    return answers


def _require_subnet(network: Thing) -> None:
    if not network.facts["subnets"]:
        sentence = f"network {network.name!r} has no subnet, and Nova makes no VM there: make one"
        raise wrong(_NETWORKS, sentence)


def _is_of_a_host(address: str, cidr: str) -> bool:
    """Whether a VM can have it: IPv4 keeps the first and the last of a range for itself."""
    network, wanted = ip_network(cidr), ip_address(address)
    is_kept = (
        wanted.version == 4  # noqa: PLR2004
        and network.num_addresses > 2  # noqa: PLR2004
        and wanted in {network.network_address, network.broadcast_address}
    )
    return wanted in network and not is_kept


def _require_version(version: str, options: PresetOptions) -> None:
    """Refuse what this Nova is too old for, with what it lacks."""
    has = tuple(map(int, version.split(".")))
    volume = options.boot_volume
    asked = (
        ("tags", bool(options.tags), _TAGS),
        ("networks", bool(options.networks), _NO_NETWORK),
        ("boot_volume.type", bool(volume and volume.type), _VOLUME_TYPE),
        ("server_group", (options.server_group or "").startswith("soft-"), _SOFT_POLICIES),
    )
    for key, is_asked, needed in asked:
        if is_asked and has < needed:
            since = ".".join(map(str, needed))
            raise Unsupported(
                f"spec.options.{key}: needs Nova's microversion {since}, and this cloud has "
                f"{version}: leave it out",
                option=key,
            )


def _require_room(image: Thing, flavor: Thing, options: PresetOptions) -> None:
    """Refuse an image that does not fit into the flavor; a disk of 0 is as large as the image."""
    needs_ram, has_ram = image.facts["min_ram_mib"], flavor.facts["ram_mib"]
    if needs_ram > has_ram:
        sentence = f"{flavor.name!r} has {has_ram} MiB of memory, and image {image.name!r} needs"
        raise wrong("spec.flavor", f"{sentence} {needs_ram}")
    volume = options.boot_volume
    has_disk = volume.size if volume else flavor.facts["disk_gib"]
    needs_disk = image.facts["min_disk_gib"]
    if has_disk and needs_disk > has_disk:
        field = "spec.options.boot_volume.size" if volume else "spec.flavor"
        whose = "the volume" if volume else repr(flavor.name)
        sentence = f"{whose} has {has_disk} GiB of disk, and image {image.name!r} needs"
        raise wrong(field, f"{sentence} {needs_disk}")
