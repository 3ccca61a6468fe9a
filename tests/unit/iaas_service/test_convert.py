"""Messages ⇄ domain: every word of the contract has its own on our side."""

from __future__ import annotations

import pytest

from iaas_service import convert
from iaas_service.domain import Reason
from iaas_service.port import Trait
from vmshepherd.iaas.v1 import iaas_service_pb2 as pb
from vmshepherd.iaas.v1 import vm_pb2
from vmshepherd_kit.errors import BadRequest


def test_every_reason_of_the_contract_is_known_by_its_own_name() -> None:
    told = {
        name.removeprefix("MUTATION_REASON_"): convert.mutation(pb.VmMutation(reason=number)).reason
        for name, number in pb.MutationReason.items()
    }
    assert told.pop("UNSPECIFIED") is None
    assert told == {reason.name: reason for reason in Reason}


@pytest.mark.parametrize("number", [0, 12, 99, -1])
def test_an_unknown_reason_is_none(number: int) -> None:
    mutation = pb.VmMutation()
    mutation.reason = number  # type: ignore[assignment]
    assert convert.mutation(mutation).reason is None


def test_every_trait_of_the_contract_is_one_of_a_driver() -> None:
    told = {name.removeprefix("PROVIDER_TRAIT_") for name, _ in vm_pb2.ProviderTrait.items()}
    assert told - {"UNSPECIFIED"} == {trait.name for trait in Trait}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.RebuildVmsRequest(spec=vm_pb2.VmSpec(user_data="x" * 65_537)), "spec.user_data"),
        (pb.RebuildVmsRequest(spec_hash="x" * 256), "spec_hash"),
    ],
)
def test_a_rebuild_from_what_no_vm_can_be_made_of_names_the_field(
    request_: pb.RebuildVmsRequest, field: str
) -> None:
    with pytest.raises(BadRequest) as refusal:
        convert.rebuild_spec(request_)
    assert [violation.field for violation in refusal.value.violations] == [field]
