"""The preset service: what is declared, kept up to date by its stream.

`Presets` is the copy that cycles read; a change wakes whoever listens. A lost stream leaves the
copy as it is: presets never vanish because somebody could not be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from vmshepherd.health.v1 import health_service_pb2
from vmshepherd.iaas.v1 import vm_pb2
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd.preset.v1 import preset_service_pb2 as pb
from vmshepherd.preset.v1.preset_service_pb2_grpc import PresetServiceStub
from vmshepherd_kit import dial, log, stamps
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import ResumeTokenTooOld, ShepherdError

from ..model import Check, Policy, PresetName, Replace, Spec

RETRY_AFTER = timedelta(seconds=1)

_POLICY_FIELDS = {field.name for field in fields(Policy)}
_REPLACE = {
    preset_pb2.REPLACE_ROLLING: Replace.ROLLING,
    preset_pb2.REPLACE_ON_FAILURE: Replace.ON_FAILURE,
    preset_pb2.REPLACE_NEVER: Replace.NEVER,
}

_log = log.get("presets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A preset as its source declares it, ready for use."""

    message: preset_pb2.Preset
    spec: Spec | None
    provider: str = ""
    vm_spec: vm_pb2.VmSpec | None = None
    check: health_service_pb2.Check | None = None
    interval: timedelta | None = None


class Presets:
    """The newest copy of what is declared."""

    def __init__(self, channel: grpc.aio.Channel, *, clock: Clock) -> None:
        self._stub = PresetServiceStub(channel)
        self._clock = clock
        self._declared: dict[PresetName, Declared] = {}
        self._removed: dict[PresetName, Declared] = {}
        self._token = ""
        self.is_synced = False
        self.error = ""

    def get(self, name: PresetName) -> Declared | None:
        """One preset, None when no source declares it."""
        return self._declared.get(name)

    def names(self) -> list[PresetName]:
        """All presets, in order of their names."""
        return sorted(self._declared)

    def removed(self) -> list[PresetName]:
        """Presets that were declared in this process life and are not any more."""
        return sorted(self._removed.keys() - self._declared.keys())

    def last(self, name: PresetName) -> Declared | None:
        """A removed preset as it was declared last, where this process has seen it so."""
        return self._removed.get(name)

    def is_understood(self, source: str, file: str) -> bool:
        """Whether some preset is known of a file in which something is wrong."""
        known = (each.message for each in self._declared.values() if each.spec)
        known = (message for message in known if message.source == source)
        return any(finding.file == file for message in known for finding in message.findings)

    async def sources(self) -> list[preset_pb2.Source]:
        """Every source with its errors."""
        return list((await dial.ask(self._stub.ListSources, pb.ListSourcesRequest())).sources)

    async def follow(self, changed: Callable[[Iterable[PresetName]], None]) -> None:
        """Keep the copy up to date for ever; `changed` is told the names."""
        while True:
            try:
                await self._follow_once(changed)
            except ResumeTokenTooOld:
                self._token = ""
            except ShepherdError as e:
                self.error = e.message
                _log.warning("presets are not being watched", error=e.message)
            await self._clock.sleep(RETRY_AFTER)

    async def _follow_once(self, changed: Callable[[Iterable[PresetName]], None]) -> None:
        snapshot: set[PresetName] | None = None if self._token else set()
        request = pb.WatchPresetsRequest(resume_token=self._token)
        async with aclosing(dial.listen(self._stub.WatchPresets, request)) as stream:
            async for event in stream:
                if event.HasField("upserted"):
                    names = self._upsert(event.upserted.presets)
                    snapshot = None if snapshot is None else snapshot | names
                    changed(names)
                elif event.HasField("removed"):
                    changed(self._remove(PresetName(gone.name) for gone in event.removed.presets))
                else:
                    self.error = ""
                    self.is_synced = event.bookmark.sources_synced
                    if snapshot is not None and self.is_synced:
                        # A whole snapshot of sources that were read whole: absence means removal.
                        changed(self._remove(set(self._declared) - snapshot))
                        snapshot = None
                    # What was removed while the stream was broken is told by a snapshot alone.
                    self._token = event.bookmark.resume_token if snapshot is None else ""

    def _upsert(self, messages: Iterable[preset_pb2.Preset]) -> set[PresetName]:
        fresh = {PresetName(message.name): declared(message) for message in messages}
        self._declared |= fresh
        return set(fresh)

    def _remove(self, names: Iterable[PresetName]) -> list[PresetName]:
        gone = {name: last for name in names if (last := self._declared.pop(name, None))}
        self._removed |= gone
        return list(gone)


def declared(message: preset_pb2.Preset) -> Declared:
    """A preset ready for use; without a spec when it was never read successfully."""
    if not message.HasField("spec"):
        return Declared(message=message, spec=None)
    spec = message.spec
    interval = stamps.from_duration(spec.manage_interval)
    return Declared(
        message=message,
        spec=_spec(message),
        provider=spec.provider,
        vm_spec=_vm_spec(spec),
        check=_check_message(spec),
        interval=interval or None,
    )


def policy(message: preset_pb2.Policy) -> Policy:
    """The policy, with its defaults for what is not set; numbers and times have the same names on
    both sides, and a choice that this version does not know is the default one.
    """
    given: dict[str, Any] = {
        field.name: stamps.from_duration(value) if isinstance(value, Duration) else value
        for field, value in message.ListFields()
        if field.name in _POLICY_FIELDS
    }
    choices = {
        "replace": _REPLACE.get(message.replace, Policy().replace),
        "oldest_leaves_first": message.scale_in_order == preset_pb2.SCALE_IN_ORDER_OLDEST,
        "stopped_are_replaced": message.on_stopped == preset_pb2.ON_STOPPED_REPLACE,
        "deleted_on_removal": message.on_remove == preset_pb2.ON_REMOVE_DELETE,
    }
    return Policy(**{**given, **choices})


def _spec(message: preset_pb2.Preset) -> Spec:
    spec = message.spec
    zones = spec.network.availability_zones
    return Spec(
        name=PresetName(message.name),
        count=spec.count,
        spec_hash=message.spec_hash,
        managed=not spec.unmanaged,
        images=_choice(spec.image, spec.fallback_images),
        flavors=_choice(spec.flavor, spec.fallback_flavors),
        zones=tuple(zones) if len(zones) > 1 else (),
        check=_check(spec.healthcheck) if spec.HasField("healthcheck") else None,
        policy=policy(spec.policy),
    )


def _choice(first: str, others: Sequence[str]) -> tuple[str, ...]:
    """All alternatives, or none where there is nothing to choose."""
    return (first, *others) if others else ()


def _check(message: preset_pb2.HealthCheck) -> Check:
    default = Check()
    has_time = message.HasField("min_failing_time")
    return Check(
        fall=message.fall if message.HasField("fall") else default.fall,
        rise=message.rise if message.HasField("rise") else default.rise,
        min_failing_time=stamps.from_duration(message.min_failing_time)
        if has_time
        else default.min_failing_time,
        observe_only=message.observe_only,
    )


def _vm_spec(spec: preset_pb2.PresetSpec) -> vm_pb2.VmSpec:
    return vm_pb2.VmSpec(
        flavor=spec.flavor,
        image=spec.image,
        security_groups=spec.network.security_groups,
        availability_zone=_only_zone(spec.network),
        networks=[
            vm_pb2.NetworkAttachment(network=each.network, subnet=each.subnet)
            for each in spec.network.attachments
        ],
        user_data=spec.user_data,
        metadata=spec.meta_tags,
        key_name=spec.key_name,
        options=spec.iaas_options if spec.HasField("iaas_options") else None,
    )


def _only_zone(network: preset_pb2.Network) -> str:
    """The zone of every VM; "" where the cloud chooses, or where each create has one of several."""
    zones = network.availability_zones
    return zones[0] if len(zones) == 1 else network.availability_zone


def _check_message(spec: preset_pb2.PresetSpec) -> health_service_pb2.Check | None:
    if not spec.HasField("healthcheck"):
        return None
    check = spec.healthcheck
    return health_service_pb2.Check(
        driver=check.driver, options=check.options if check.HasField("options") else None
    )
