"""Which address of a target is probed, and which never are. Pure.

Only literal addresses: a name would be looked up by us, and could mean another machine a second
later. A prober sits where attackers would like to sit, so the addresses behind which clouds keep
credentials are refused in whatever spelling they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Annotated, Final, Literal

from pydantic import Field

from health_service.domain import Address, Aim, Reason, Result, Target, Verdict
from vmshepherd_kit.settings import Settings

Network = IPv4Network | IPv6Network

_FORBIDDEN: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # "this host": connects to ourselves
        "169.254.0.0/16",  # link-local: metadata of OpenStack, EC2, GCP, Azure
        "168.63.129.16/32",  # Azure's wire server
        "100.100.100.200/32",  # Alibaba's metadata
        "192.0.0.192/32",  # Oracle's metadata
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "fe80::/10",  # link-local: OpenStack's metadata is fe80::a9fe:a9fe
        "fd00:ec2::/64",  # EC2's metadata, time and name services
        "fd20:ce::254/128",  # GCP's metadata
        "ff00::/8",  # multicast
    )
)
_LOOPBACK6: Final = IPv6Address("::1")
_COMPATIBLE: Final = IPv6Network("::/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")


class AddressOptions(Settings):
    """The part of a network check's options that chooses among a target's addresses."""

    address_family: Literal["any", "ipv4", "ipv6"] = Field(
        default="any", description="Only addresses of this family."
    )
    address_index: Annotated[int, Field(ge=0, le=99)] = Field(
        default=0, description="Which of them, counted from 0, in the order given."
    )


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the operator allows: these networks, or, with none named, all that are not forbidden."""

    allowed: tuple[Network, ...] = ()

    def why_not(self, address: Address) -> str:
        """Why this address may not be probed; "" when it may."""
        for meant in _meanings(address):
            if any(meant in network for network in _FORBIDDEN):
                return f"{address} is link-local, multicast, reserved or a cloud's own service"
        if self.allowed and not any(address in network for network in self.allowed):
            return f"{address} is outside the allowed_networks of this prober"
        return ""


def aim(target: Target, options: AddressOptions, rules: Rules) -> Aim | Result:
    """The target with the address to probe, or the result that says why there is none."""
    if not target.addresses:
        return _unknown(target, Reason.NO_ADDRESS, "it has no address")
    addresses = [(text, _parsed(text)) for text in target.addresses]
    fit = [(text, a) for text, a in addresses if a is None or _is_of(a, options.address_family)]
    if options.address_index >= len(fit):
        return _unknown(target, Reason.NO_ADDRESS, _too_few(fit, options))
    text, address = fit[options.address_index]
    if address is None:
        return _unknown(target, Reason.DNS, f"{text[:64]!r} is no IP address; names are not probed")
    if why := rules.why_not(address):
        return _unknown(target, Reason.FORBIDDEN_ADDRESS, why)
    return Aim(target.target_id, address)


def url_host(address: Address | None) -> str:
    """The address as it stands in a URL."""
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)


def _parsed(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_of(address: Address, family: str) -> bool:
    return family in {"any", f"ipv{address.version}"}


def _meanings(address: Address) -> Iterator[Address]:
    """The address itself, and the IPv4 addresses that an IPv6 one may lead to."""
    if isinstance(address, IPv4Address):
        yield address
        return
    # A scope id would hide the address from comparisons.
    address = IPv6Address(int(address))
    yield address
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in _NAT64 or (address in _COMPATIBLE and address != _LOOPBACK6):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _too_few(fit: Sequence[object], options: AddressOptions) -> str:
    family = "" if options.address_family == "any" else f"{options.address_family} "
    return f"it has {len(fit)} {family}addresses, and the check wants index {options.address_index}"


def _unknown(target: Target, reason: str, message: str) -> Result:
    return Result(target.target_id, Verdict.UNKNOWN, reason, message)
