"""The keys of a preset file: those of VmShepherd 1.6, and those that are new.

`reading` parses files and the configuration's defaults by these models.  A key with nothing behind
it counts as not written.  Options of checks and providers may stand inline, beside `driver`, as
they always did.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, model_validator

from preset_service.domain import (
    MAX_CHOICES,
    MAX_COUNT,
    MAX_USER_DATA_BYTES,
    NAME,
    OnRemove,
    OnStopped,
    Replace,
    ScaleInOrder,
)
from vmshepherd_kit import settings
from vmshepherd_kit.settings import Duration, Settings

_LINK_SCHEMES: Final = ("http://", "https://", "ssh://")
# What the suite itself writes beside them begins so.
_MARKER_PREFIXES: Final = ("vmshepherd.", "vmshepherd_", "vmshepherd:", "vmshepherd-")
OFF: Final = timedelta(seconds=-1)
_CENTURY: Final = "36500d"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text: put it in quotes")  # noqa: TRY004  pydantic's contract
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _name(value: object) -> str:
    text = _text(value)
    if not NAME.fullmatch(text):
        raise ValueError(
            'must be a letter or digit, then letters, digits, ".", "_" or "-", at most 128 in all'
        )
    return text


def _user_data(value: object) -> str:
    text = _text(value)
    if len(text.encode()) > MAX_USER_DATA_BYTES:
        raise ValueError(f"must not be longer than {MAX_USER_DATA_BYTES} bytes")
    return text


def _one_or_many(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _choice(value: object) -> str:
    if not (text := _text(value)):
        raise ValueError("must not be empty: remove it, or name one")
    return text


def _in_order(value: object) -> object:
    """One text, or a list whose first entry is preferred; "" is none."""
    if not isinstance(value, list | tuple):
        return [] if value == "" else [value]
    if not 1 <= len(value) <= MAX_CHOICES:
        raise ValueError(
            f"must be one text or a list of 1 to {MAX_CHOICES}: {len(value)} stand here"
        )
    for second, each in enumerate(value):
        if (first := value.index(each)) < second:
            raise ValueError(f"entries {first + 1} and {second + 1} are the same: remove one")
    return value


def _tags(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    for key in value:
        if str(key).lower().startswith(_MARKER_PREFIXES):
            raise ValueError(f"{key!r} is how the suite marks its VMs: choose another key")
    return value


def _tag(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _text(value)


def _links(value: object) -> object:
    """A mapping of labels to URLs, or a list of `{name, url}` as it was written before."""
    if not isinstance(value, list | tuple):
        return value
    links = {}
    for each in value:
        labels = [key for key in ("name", "label") if isinstance(each, Mapping) and key in each]
        if len(labels) != 1 or set(each) != {labels[0], "url"}:
            raise ValueError("each must have the keys name (or label) and url, and no other")
        links[str(each[labels[0]])] = each["url"]
    return links


def _link(value: object) -> str:
    text = _text(value)
    if not text.lower().startswith(_LINK_SCHEMES):
        raise ValueError("must begin with " + ", ".join(_LINK_SCHEMES))
    return text


def _delay(value: object) -> timedelta:
    """Seconds, as VmShepherd 1.6 had them: -1 switches the consequence off."""
    is_off = value == -1 and not isinstance(value, bool)
    return OFF if is_off else settings.duration(value)


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_name)]
Flag = Annotated[bool, Field(strict=True)]
Options = dict[str, Any]
Choices = Annotated[
    tuple[Annotated[str, BeforeValidator(_choice)], ...], BeforeValidator(_in_order)
]


def _between(lowest: int, highest: int) -> BeforeValidator:
    """A whole number of that range, and nothing like it."""

    def checked(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return value
        raise ValueError(f"must be a whole number from {lowest} to {highest}, without quotes")

    return BeforeValidator(checked)


def _lasting(shortest: str, longest: str, way_out: str = "") -> BeforeValidator:
    """A length of time of that range, written as every other."""
    least, most = settings.duration(shortest), settings.duration(longest)

    def checked(value: object) -> timedelta:
        with contextlib.suppress(ValueError):
            if least <= (length := settings.duration(value)) <= most:
                return length
        raise ValueError(
            f"must be from {shortest} to {longest}: seconds, or a text like 1m30s, 2h, 1d{way_out}"
        )

    return BeforeValidator(checked)


def spellings(model: type[Settings]) -> Iterator[list[str]]:
    """The names that each field may bear in a file."""
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [name]
        yield [choice for choice in choices if isinstance(choice, str)]


def known_keys(model: type[Settings]) -> list[str]:
    """All names of a model's fields."""
    return [name for names in spellings(model) for name in names]


class Keys(Settings):
    """A mapping of a preset file."""

    @model_validator(mode="before")
    @classmethod
    def _written(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        known = set(known_keys(cls))
        for names in spellings(cls):
            if len(twice := [name for name in names if raw.get(name) is not None]) > 1:
                raise ValueError(f"{' and '.join(twice)} mean the same: remove one")
        return {key: value for key, value in raw.items() if value is not None or key not in known}


class OpenKeys(Keys):
    """A mapping that may hold a driver's options beside its own keys."""

    model_config = ConfigDict(extra="allow")

    options: Options = Field(
        default_factory=dict, validation_alias=AliasChoices("options", "driver_params")
    )

    @model_validator(mode="after")
    def _once(self) -> OpenKeys:
        if both := sorted(set(self.options) & set(self.model_extra or {})):
            raise ValueError(f"{', '.join(both)}: stands both inline and beneath options")
        return self

    def driver_options(self) -> Options:
        """The options, wherever they stood."""
        return {**self.options, **(self.model_extra or {})}

    def slips(self) -> Iterator[tuple[str, str]]:
        """Inline keys that no driver can have meant, each with the key that was."""
        for key in self.model_extra or {}:
            if near := difflib.get_close_matches(key, known_keys(type(self)), n=1, cutoff=0.8):
                yield key, near[0]


class AttachmentKeys(Keys):
    """One interface: a network, a subnet, or both."""

    network: Text = ""
    subnet: Text = ""

    @model_validator(mode="after")
    def _somewhere(self) -> AttachmentKeys:
        if not self.network and not self.subnet:
            raise ValueError("must name a network or a subnet")
        return self


def _attachment(key: str) -> BeforeValidator:
    return BeforeValidator(lambda value: {key: value} if not isinstance(value, Mapping) else value)


Subnet = Annotated[AttachmentKeys, _attachment("subnet")]
NetworkName = Annotated[AttachmentKeys, _attachment("network")]


class NetworkKeys(Keys):
    """`network:`"""

    security_groups: Annotated[tuple[Text, ...], BeforeValidator(_one_or_many)] = ()
    availability_zone: Choices = Field(
        default=(), validation_alias=AliasChoices("availability_zone", "availability_zones")
    )
    networks: Annotated[tuple[NetworkName, ...], BeforeValidator(_one_or_many)] = ()
    subnets: Annotated[tuple[Subnet, ...], BeforeValidator(_one_or_many)] = Field(
        default=(), validation_alias=AliasChoices("subnets", "subnet")
    )


class HealthKeys(OpenKeys):
    """`healthcheck:`"""

    driver: Text | None = None
    fall: Annotated[int, _between(1, 1000)] | None = None
    rise: Annotated[int, _between(1, 1000)] | None = None
    min_failing_time: Duration | None = None
    observe_only: Flag | None = None
    terminate_health_failed_delay: Annotated[timedelta, BeforeValidator(_delay)] | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "terminate_health_failed_delay", "terminate_heatlh_failed_delay"
        ),
    )

    @model_validator(mode="after")
    def _one_time(self) -> HealthKeys:
        if self.terminate_health_failed_delay is not None and (
            self.min_failing_time is not None or self.observe_only is not None
        ):
            raise ValueError(
                "terminate_health_failed_delay is the former key for min_failing_time and "
                "observe_only (-1): remove it where they stand"
            )
        return self


class IaasKeys(OpenKeys):
    """`iaas:`"""

    provider: Name | None = None
    driver: Text | None = None

    @model_validator(mode="after")
    def _one_provider(self) -> IaasKeys:
        if self.provider is not None and self.driver is not None:
            raise ValueError("driver is the former key for provider: remove it")
        return self


class PolicyKeys(Keys):
    """`policy:`"""

    max_surge: Annotated[int, _between(0, 100)] | None = None
    max_unavailable: Annotated[int, _between(0, 100)] | None = None
    startup_grace: Duration | None = None
    boot_timeout: Annotated[timedelta, _lasting("1s", _CENTURY)] | None = None
    max_deletions_per_cycle: Annotated[int, _between(0, MAX_COUNT)] | None = None
    shutdown_notice: Duration | None = None
    breaker_count: Annotated[int, _between(1, MAX_COUNT)] | None = None
    breaker_percent: Annotated[int, _between(1, 100)] | None = None
    scale_in_order: ScaleInOrder | None = None
    on_remove: OnRemove | None = None
    replace: Replace | None = None
    canary: Annotated[int, _between(0, 100)] | None = None
    min_healthy_time: Annotated[timedelta, _lasting("0s", "1d")] | None = None
    batch_pause: Annotated[timedelta, _lasting("0s", "7d")] | None = None
    reboots: Annotated[int, _between(0, 10)] | None = None
    rebuilds: Annotated[int, _between(0, 10)] | None = None
    keep_failed: Annotated[int, _between(0, 100)] | None = None
    keep_failed_time: (
        Annotated[timedelta, _lasting("1s", "90d", "; keep_failed: 0 keeps none")] | None
    ) = None
    max_lifetime: (
        Annotated[timedelta, _lasting("1s", _CENTURY, "; leave it out for no limit")] | None
    ) = None
    suspend_after: Annotated[int, _between(0, 100)] | None = None
    on_stopped: OnStopped | None = None
    removal_grace: Annotated[timedelta, _lasting("0s", "90d")] | None = None
    max_deletions_per_window: Annotated[int, _between(0, MAX_COUNT)] | None = None
    # What has been destroyed within a window is remembered for so long: a day is plenty.
    deletion_window: Annotated[timedelta, _lasting("1s", "1d")] | None = None
    breaker_window: Annotated[timedelta, _lasting("0s", "1d")] | None = None
    longest_backoff: Annotated[timedelta, _lasting("1s", "1d")] | None = None


Iaas = Annotated[
    IaasKeys,
    BeforeValidator(lambda value: {"provider": value} if isinstance(value, str) else value),
]


class Defaults(Keys):
    """What every preset of the configuration takes, unless it says otherwise."""

    healthcheck: HealthKeys = HealthKeys()
    iaas: Iaas = IaasKeys()
    policy: PolicyKeys = PolicyKeys()


class PresetKeys(Defaults):
    """A preset file."""

    name: Name | None = None
    count: Annotated[int, _between(0, MAX_COUNT)] | None = None
    flavor: Choices = Field(default=(), validation_alias=AliasChoices("flavor", "flavour"))
    image: Choices = ()
    manage_interval: Duration | None = None
    manage_expire: Duration | None = None
    network: NetworkKeys = NetworkKeys()
    userdata: Annotated[str, BeforeValidator(_user_data)] = Field(default="", repr=False)
    userdata_source_root: Text = ""
    meta_tags: Annotated[
        dict[Text, Annotated[str, BeforeValidator(_tag)]], BeforeValidator(_tags)
    ] = Field(default_factory=dict)
    key_name: Text = ""
    unmanaged: Flag = False
    panel_links: Annotated[
        dict[Text, Annotated[str, BeforeValidator(_link)]], BeforeValidator(_links)
    ] = Field(default_factory=dict)
