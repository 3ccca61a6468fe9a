"""Messages ⇄ domain: pure; what is wrong with a message becomes a BadRequest that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from vmshepherd.iaas.v1 import iaas_service_pb2, vm_pb2
from vmshepherd_kit import status
from vmshepherd_kit.errors import BadRequest, ShepherdError, Violation
from vmshepherd_kit.stamps import from_timestamp, to_duration, to_timestamp

from . import marker
from .domain import (
    Attachment,
    CatalogEntry,
    Change,
    Check,
    Gone,
    Marker,
    Mutation,
    Order,
    Quota,
    Reason,
    Spec,
    Vm,
    VmId,
    VmState,
)
from .port import Trait
from .providers import Provider

Existed = bool

_USER_DATA_BYTES: Final = 64 * 1024
_LONGEST: Final = 255
_CHANGES: Final = 100

_STATES: Final = {state: vm_pb2.VmState.Value(f"VM_STATE_{state.name}") for state in VmState}
_TRAITS: Final = {
    trait: vm_pb2.ProviderTrait.Value(f"PROVIDER_TRAIT_{trait.name}") for trait in Trait
}
_REASONS: Final = {
    iaas_service_pb2.MutationReason.Value(f"MUTATION_REASON_{reason.name}"): reason
    for reason in Reason
}


def provider_message(provider: Provider) -> vm_pb2.Provider:
    """A provider with what it can do."""
    traits = provider.cloud.traits
    message = vm_pb2.Provider(
        name=provider.name,
        driver=provider.driver,
        traits=sorted(_TRAITS[trait] for trait in traits),
    )
    if Trait.IDEMPOTENT_CREATE not in traits:
        message.unknown_outcome_horizon.CopyFrom(to_duration(provider.cloud.horizon))
    return message


def vm_message(provider: str, vm: Vm, mark: Marker | None) -> vm_pb2.Vm:
    """A VM; `mark` is its marker, when it is ours."""
    shutdown, note = marker.timed_shutdown(vm.metadata)
    message = vm_pb2.Vm(
        vm_id=vm.vm_id,
        provider=provider,
        name=vm.name,
        state=_STATES[vm.state],
        cloud_state=vm.cloud_state,
        fault=vm.fault or note,
        addresses=[
            vm_pb2.Address(ip=a.ip, network=a.network, floating=a.floating) for a in vm.addresses
        ],
        image=vm.image,
        flavor=vm.flavor,
        zone=vm.zone,
        host=vm.host,
        create_time=to_timestamp(vm.create_time),
        metadata=marker.without(vm.metadata) if mark else vm.metadata,
        protected=marker.is_protected(vm),
        key_name=vm.key_name,
    )
    if shutdown is not None:
        message.timed_shutdown_time.CopyFrom(to_timestamp(shutdown))
    if mark is not None:
        message.marker.CopyFrom(_marker_message(mark))
    return message


def vm_result(
    provider: str, outcome: Vm | ShepherdError, suite_id: str, *, console: str = ""
) -> iaas_service_pb2.VmResult:
    """What became of one VM."""
    if isinstance(outcome, ShepherdError):
        return iaas_service_pb2.VmResult(status=status.to_proto(outcome))
    mark = marker.read(outcome.metadata, suite_id)
    vm = vm_message(provider, outcome, mark)
    return iaas_service_pb2.VmResult(status=status.to_proto(None), vm=vm, console=console)


def terminate_result(outcome: ShepherdError | Existed) -> iaas_service_pb2.TerminateResult:
    """What became of one termination."""
    if isinstance(outcome, ShepherdError):
        return iaas_service_pb2.TerminateResult(status=status.to_proto(outcome))
    return iaas_service_pb2.TerminateResult(status=status.to_proto(None), existed=outcome)


def order(message: iaas_service_pb2.VmCreate, suite_id: str) -> Order | BadRequest:
    """One VM to be made, or what is wrong with the wish for it."""
    spec = spec_of(message.spec)
    violations = [*_order_violations(message), *_spec_violations(spec)]
    if violations:
        return _refusal(violations)
    mark = Marker(
        suite_id=suite_id,
        preset=message.preset,
        request_id=message.request_id,
        fencing_token=message.fencing_token,
        spec_hash=message.spec_hash,
    )
    return Order(name=message.name, spec=spec, marker=mark)


def spec_of(message: vm_pb2.VmSpec) -> Spec:
    """How a VM shall be made."""
    return Spec(
        flavor=message.flavor,
        image=message.image,
        security_groups=tuple(message.security_groups),
        availability_zone=message.availability_zone,
        networks=tuple(Attachment(network=n.network, subnet=n.subnet) for n in message.networks),
        user_data=message.user_data,
        metadata=dict(message.metadata),
        key_name=message.key_name,
        options=_plain(message.options),
    )


def checked_spec(message: vm_pb2.VmSpec) -> Spec | BadRequest:
    """How VMs would be made, or what is wrong with that whatever the cloud."""
    spec = spec_of(message)
    violations = list(_spec_violations(spec))
    return _refusal(violations) if violations else spec


def rebuild_spec(message: iaas_service_pb2.RebuildVmsRequest) -> Spec:
    """What VMs shall be made anew from.  BadRequest."""
    spec = spec_of(message.spec)
    violations = [*_hash_violations(message.spec_hash), *_user_data_violations(spec)]
    if violations:
        raise _refusal(violations)
    return spec


def mutation(message: iaas_service_pb2.VmMutation) -> Mutation:
    """A VM to be touched; the gates judge what is missing."""
    has_time = message.HasField("create_time")
    return Mutation(
        vm_id=VmId(message.vm_id),
        preset=message.preset,
        fencing_token=message.fencing_token,
        create_time=from_timestamp(message.create_time) if has_time else None,
        reason=_REASONS.get(message.reason),
        evidence=message.evidence,
        force=message.force,
    )


def catalog_entry(entry: CatalogEntry) -> iaas_service_pb2.CatalogEntry:
    """One thing that a provider offers."""
    kind = iaas_service_pb2.CatalogKind.Value(f"CATALOG_KIND_{entry.kind.name}")
    return iaas_service_pb2.CatalogEntry(
        kind=kind, id=entry.id, name=entry.name, details=entry.details
    )


def quota(limit: Quota) -> iaas_service_pb2.Quota:
    """One limit of a provider."""
    return iaas_service_pb2.Quota(resource=limit.resource, limit=limit.limit, used=limit.used)


def check_message(check: Check) -> iaas_service_pb2.Check:
    """One thing that was checked."""
    return iaas_service_pb2.Check(
        name=check.name,
        status=iaas_service_pb2.CheckStatus.Value(f"CHECK_STATUS_{check.status.name}"),
        message=check.message,
        way_out=check.way_out,
    )


def spec_result(outcome: str | ShepherdError) -> iaas_service_pb2.SpecResult:
    """What is to be said of one spec."""
    if isinstance(outcome, ShepherdError):
        return iaas_service_pb2.SpecResult(status=status.to_proto(outcome))
    return iaas_service_pb2.SpecResult(status=status.to_proto(None), message=outcome)


def change_messages(
    provider: str, changes: Sequence[Change], suite_id: str
) -> Iterator[iaas_service_pb2.WatchVmsResponse]:
    """What happened to VMs of ours, in messages of bounded size."""
    read = [(change, marker.read(change.vm.metadata, suite_id)) for change in changes]
    ours = [(change, mark) for change, mark in read if mark]
    for start in range(0, len(ours), _CHANGES):
        part = ours[start : start + _CHANGES]
        gone = [
            iaas_service_pb2.GoneVm(vm_id=change.vm.vm_id, preset=mark.preset)
            for change, mark in part
            if isinstance(change, Gone)
        ]
        changed = [
            vm_message(provider, change.vm, mark)
            for change, mark in part
            if not isinstance(change, Gone)
        ]
        if changed:
            message = iaas_service_pb2.VmsChanged(vms=changed)
            yield iaas_service_pb2.WatchVmsResponse(changed=message)
        if gone:
            yield iaas_service_pb2.WatchVmsResponse(gone=iaas_service_pb2.VmsGone(vms=gone))


def _marker_message(mark: Marker) -> vm_pb2.Marker:
    return vm_pb2.Marker(
        suite_id=mark.suite_id,
        preset=mark.preset,
        request_id=mark.request_id,
        fencing_token=mark.fencing_token,
        spec_hash=mark.spec_hash,
    )


def _order_violations(message: iaas_service_pb2.VmCreate) -> Iterator[Violation]:
    if not marker.is_request_id(message.request_id):
        yield Violation("request_id", "must be a UUID in its canonical form")
    if not marker.is_preset_name(message.preset):
        yield Violation("preset", "must be the name of a preset")
    if not 0 < len(message.name) <= _LONGEST:
        yield Violation("name", f"must have 1 to {_LONGEST} characters")
    yield from _hash_violations(message.spec_hash)


def _hash_violations(spec_hash: str) -> Iterator[Violation]:
    if len(spec_hash) > _LONGEST:
        yield Violation("spec_hash", f"must have at most {_LONGEST} characters")


def _user_data_violations(spec: Spec) -> Iterator[Violation]:
    if len(spec.user_data.encode()) > _USER_DATA_BYTES:
        yield Violation("spec.user_data", "must have at most 64 KiB")


def _spec_violations(spec: Spec) -> Iterator[Violation]:
    yield from _user_data_violations(spec)
    for key, value in spec.metadata.items():
        if marker.is_reserved(key):
            yield Violation(f"spec.metadata.{key}", "is a key of the suite's own")
        if not 0 < len(key) <= _LONGEST or len(value) > _LONGEST:
            limit = f"must have at most {_LONGEST} characters, as key and as value"
            yield Violation(f"spec.metadata.{key[:_LONGEST]}", limit)


def _refusal(violations: Sequence[Violation]) -> BadRequest:
    sentences = "; ".join(f"{v.field} {v.description}" for v in violations)
    return BadRequest(sentences, violations=violations)


def _plain(options: Struct) -> Mapping[str, Any]:
    plain: dict[str, Any] = json_format.MessageToDict(options)
    return plain
