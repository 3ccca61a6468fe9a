"""Pure: what a preset may wish for beyond the fields of every cloud, and what Nova takes at most.

`resolve` asks, before anything is looked up: a wish that cannot be fulfilled costs no call.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vmshepherd_kit import settings
from vmshepherd_kit.errors import BadRequest, Violation
from vmshepherd_kit.settings import Settings

from ... import marker
from ...domain import Spec

# What Nova's schemas say: keys and values of metadata, user data in base64, tags.
_LONGEST: Final = 255
_KEY: Final = re.compile(r"[A-Za-z0-9_:. -]{1,255}", re.ASCII)
_USER_DATA: Final = 65_535
# What MySQL's `utf8`, in which Nova makes its tables, has no room for.
_UNKEPT: Final = re.compile(r"[^\u0000-\uffff]")

POLICIES: Final = ("anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity")
"""Values of `server_group` for which the driver makes a group a preset; others name one."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Tag = Annotated[str, StringConstraints(pattern=r"^[^,/]{1,60}$")]


class BootVolume(Settings):
    """A volume made of the image, from which the VM boots instead of from the host's disk."""

    size: int = Field(ge=1, le=1_000_000)
    """GiB."""
    type: Name | None = None
    """Of Cinder; its default when there is none."""
    delete_on_termination: bool = True


class PresetOptions(Settings):
    """`iaas:` of a preset, as this driver reads it; the first four choose the place."""

    project: Name | None = None
    project_name: Name | None = None
    project_domain_name: Name | None = None
    region: Name | None = None
    image_family: Name | None = None
    networks: Literal["none", "auto"] | None = None
    fixed_ip: IPv4Address | IPv6Address | None = None
    server_group: Name | None = None
    boot_volume: BootVolume | None = None
    config_drive: bool | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=50)] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.networks and self.fixed_ip:
            raise ValueError("networks and fixed_ip contradict each other: remove one")
        return self


def options(written: Mapping[str, Any]) -> PresetOptions:
    """The options of a spec.  BadRequest names each that is wrong, with the nearest known one."""
    return settings.parse(written, PresetOptions, where="spec.options")


def require_fitting(spec: Spec, options: PresetOptions) -> None:
    """Refuse what no cloud of this kind can fulfil, all faults at once.  BadRequest."""
    found = [*_contradictions(spec, options), *_user_data(spec)]
    found += [*_metadata(spec), *_tags(options)]
    if found:
        sentences = "; ".join(f"{each.field}: {each.description}" for each in found)
        raise BadRequest(sentences, violations=found)


def encoded(user_data: str) -> str:
    """User data as Nova takes them."""
    return base64.b64encode(user_data.encode()).decode("ascii")


def _contradictions(spec: Spec, options: PresetOptions) -> Iterator[Violation]:
    if spec.image and options.image_family:
        sentence = "stands beside an image: remove one of them"
        yield Violation("spec.options.image_family", sentence)
    if not spec.image and not options.image_family:
        yield Violation("spec.image", "is required: an image, or the option image_family")
    if not spec.flavor:
        yield Violation("spec.flavor", "is required")
    if spec.networks and options.networks:
        sentence = f"{options.networks!r} contradicts the networks that the preset names"
        yield Violation("spec.options.networks", sentence)
    if spec.security_groups and options.networks == "none":
        sentence = "protect no VM without a network: remove them, or the option networks"
        yield Violation("spec.security_groups", sentence)
    if options.fixed_ip and len(spec.networks) > 1:
        sentence = "is for one network, and the preset names several"
        yield Violation("spec.options.fixed_ip", sentence)


def _user_data(spec: Spec) -> Iterator[Violation]:
    size = -(-len(spec.user_data.encode()) // 3) * 4
    if size > _USER_DATA:
        sentence = (
            f"has {size:,} bytes in base64, and Nova takes {_USER_DATA:,} "
            f"({_USER_DATA // 4 * 3:,} of plain text): fetch the rest from within the VM"
        )
        yield Violation("spec.user_data", sentence)


def _metadata(spec: Spec) -> Iterator[Violation]:
    for key, value in spec.metadata.items():
        field = f"spec.metadata.{key[:_LONGEST]}"
        if marker.is_reserved(key):
            yield Violation(field, "is a key of the suite's own")
        elif not _KEY.fullmatch(key):
            sentence = "is no key for Nova: 1 to 255 letters, digits, spaces or any of - _ : ."
            yield Violation(field, sentence)
        if len(value) > _LONGEST:
            yield Violation(field, f"must have at most {_LONGEST} characters")
        yield from _unkept(field, value)


def _tags(options: PresetOptions) -> Iterator[Violation]:
    for tag in options.tags:
        yield from _unkept("spec.options.tags", tag)


def _unkept(field: str, text: str) -> Iterator[Violation]:
    """Nova takes such a text and never makes the VM: it stays in BUILD for ever."""
    if strange := _UNKEPT.search(text):
        yield Violation(
            field,
            f"has the character U+{ord(strange[0]):X}, and Nova's database keeps none beyond "
            "U+FFFF (emojis, mostly): leave it out",
        )
