"""Values of the domain → messages.  Pure; nothing of the service's state is known here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from preset_service import domain
from preset_service.book import Source
from preset_service.domain import (
    OnRemove,
    OnStopped,
    Removed,
    Replace,
    ScaleInOrder,
    Severity,
)
from preset_service.feed import Batch
from vmshepherd.preset.v1 import preset_pb2 as pb
from vmshepherd.preset.v1 import preset_service_pb2 as service_pb
from vmshepherd_kit import stamps

_CHUNK: Final = 100
# Clients of other languages refuse messages above 4 MiB unless told otherwise.
CHUNK_BYTES: Final = 2 * 1024 * 1024

_SEVERITY: Final = {
    Severity.WARNING: pb.SEVERITY_WARNING,
    Severity.ERROR: pb.SEVERITY_ERROR,
}
# Texts of the domain, all of them different, to numbers of the contract.
_CHOICES: Final[Mapping[StrEnum, int]] = {
    ScaleInOrder.NEWEST: pb.SCALE_IN_ORDER_NEWEST,
    ScaleInOrder.OLDEST: pb.SCALE_IN_ORDER_OLDEST,
    OnRemove.KEEP: pb.ON_REMOVE_KEEP,
    OnRemove.DELETE: pb.ON_REMOVE_DELETE,
    Replace.ROLLING: pb.REPLACE_ROLLING,
    Replace.ON_FAILURE: pb.REPLACE_ON_FAILURE,
    Replace.NEVER: pb.REPLACE_NEVER,
    OnStopped.PARK: pb.ON_STOPPED_PARK,
    OnStopped.REPLACE: pb.ON_STOPPED_REPLACE,
}


def preset(value: domain.Preset) -> pb.Preset:
    """A preset with its spec, if it has one."""
    message = pb.Preset(
        name=value.name,
        source=value.source,
        revision=value.revision,
        file=value.file,
        findings=findings(value.findings),
        spec_hash=value.spec_hash,
    )
    if value.spec is not None:
        message.spec.CopyFrom(spec(value.spec))
    if value.changed_time is not None:
        message.changed_time.CopyFrom(stamps.to_timestamp(value.changed_time))
    return message


def spec(value: domain.PresetSpec) -> pb.PresetSpec:
    """What the group shall be."""
    return pb.PresetSpec(
        count=value.count,
        provider=value.provider,
        flavor=value.flavor,
        image=value.image,
        network=_network(value.network),
        user_data=value.user_data,
        meta_tags=value.meta_tags,
        key_name=value.key_name,
        unmanaged=value.unmanaged,
        healthcheck=None if value.healthcheck is None else _healthcheck(value.healthcheck),
        manage_interval=_duration(value.manage_interval),
        manage_expire=_duration(value.manage_expire),
        policy=_policy(value.policy),
        panel_links=value.panel_links,
        iaas_options=_struct(value.iaas_options),
        fallback_flavors=value.fallback_flavors,
        fallback_images=value.fallback_images,
    )


def findings(values: Iterable[domain.Finding]) -> list[pb.Finding]:
    """What is wrong, in the given order."""
    return [
        pb.Finding(
            file=each.file,
            line=each.line,
            key=each.key,
            message=each.message,
            severity=_SEVERITY[each.severity],
        )
        for each in values
    ]


def source(value: Source, *, presets: int, wrong: Sequence[domain.Finding]) -> pb.Source:
    """A source, with what is wrong in it."""
    message = pb.Source(
        name=value.name,
        driver=value.driver,
        location=value.location,
        revision=value.revision,
        error=value.error,
        findings=findings(wrong),
        presets=presets,
    )
    if value.synced_time is not None:
        message.synced_time.CopyFrom(stamps.to_timestamp(value.synced_time))
    return message


def page(values: Iterable[domain.Preset], size: int) -> list[pb.Preset]:
    """As many of the presets as fit into one answer, one at least."""
    messages: list[pb.Preset] = []
    total = 0
    for value in values:
        message = preset(value)
        total += message.ByteSize()
        if messages and (len(messages) == size or total > CHUNK_BYTES):
            break
        messages.append(message)
    return messages


def changes(batch: Batch, resume_token: str) -> Iterator[service_pb.WatchPresetsResponse]:
    """The messages of one batch: presets in chunks, removals in chunks, a bookmark."""
    upserted = [each for each in batch.changes if isinstance(each, domain.Preset)]
    while upserted:
        chunk = page(upserted, _CHUNK)
        del upserted[: len(chunk)]
        yield service_pb.WatchPresetsResponse(upserted=service_pb.PresetsUpserted(presets=chunk))
    removed = [_removed(each) for each in batch.changes if isinstance(each, Removed)]
    for start in range(0, len(removed), _CHUNK):
        presets = removed[start : start + _CHUNK]
        yield service_pb.WatchPresetsResponse(removed=service_pb.PresetsRemoved(presets=presets))
    yield service_pb.WatchPresetsResponse(
        bookmark=service_pb.Bookmark(resume_token=resume_token, sources_synced=batch.is_synced)
    )


def _removed(value: Removed) -> service_pb.RemovedPreset:
    return service_pb.RemovedPreset(name=value.name, source=value.source, revision=value.revision)


def _network(value: domain.Network) -> pb.Network:
    return pb.Network(
        security_groups=value.security_groups,
        availability_zone=value.availability_zone,
        attachments=[
            pb.Attachment(network=each.network, subnet=each.subnet) for each in value.attachments
        ],
        availability_zones=value.availability_zones,
    )


def _healthcheck(value: domain.HealthCheck) -> pb.HealthCheck:
    return pb.HealthCheck(
        driver=value.driver,
        options=_struct(value.options),
        fall=value.fall,
        rise=value.rise,
        min_failing_time=_duration(value.min_failing_time),
        observe_only=value.observe_only,
    )


def _policy(value: domain.Policy) -> pb.Policy:
    """What is set, by the names that are the same on both sides; the rest stays absent."""
    given = {field.name: getattr(value, field.name) for field in fields(value)}
    return pb.Policy(**{name: _limit(each) for name, each in given.items() if each is not None})


def _limit(value: Any) -> Any:
    if isinstance(value, timedelta):
        return stamps.to_duration(value)
    return _CHOICES[value] if isinstance(value, StrEnum) else value


def _duration(value: timedelta | None) -> Duration | None:
    return None if value is None else stamps.to_duration(value)


def _struct(value: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(dict(value))
    return struct
