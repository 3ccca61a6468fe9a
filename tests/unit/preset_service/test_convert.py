"""Values of the domain as messages: whatever is set arrives, and nothing else does."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_type_hints

from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from preset_service import convert
from preset_service.domain import Network, Policy, PresetSpec
from vmshepherd.preset.v1 import preset_pb2 as pb
from vmshepherd_kit import stamps

FIELDS = {field.name: field for field in pb.Policy.DESCRIPTOR.fields}
KINDS = {
    name: next(kind for kind in get_args(hint) if kind is not NoneType)
    for name, hint in get_type_hints(Policy).items()
}

times = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36500))
texts = st.text(min_size=1, max_size=9).filter(str.isprintable)
choices = st.lists(texts, max_size=10, unique=True).map(tuple)


def limits(kind: type) -> st.SearchStrategy[Any]:
    if issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    return times if kind is timedelta else st.integers(0, 10_000)


policies = st.builds(Policy, **{name: st.none() | limits(kind) for name, kind in KINDS.items()})


def read_back(message: pb.Policy) -> Policy:
    """The policy that a reader of another language would see."""
    return Policy(**{field.name: value_of(field.name, v) for field, v in message.ListFields()})


def value_of(name: str, value: Any) -> Any:
    if isinstance(value, Duration):
        return stamps.from_duration(value)
    enum = FIELDS[name].enum_type
    if enum is None:
        return value
    word = enum.values_by_number[value].name.removeprefix(f"{name.upper()}_")
    return KINDS[name](word.lower())


def test_the_contract_and_the_domain_know_the_same_limits() -> None:
    assert set(FIELDS) == {field.name for field in fields(Policy)}


@given(policies)
def test_a_policy_arrives_as_it_was_declared(policy: Policy) -> None:
    message = convert.spec(PresetSpec(count=1, policy=policy)).policy
    assert read_back(pb.Policy.FromString(message.SerializeToString())) == policy


@given(choices, choices, choices)
def test_choices_arrive_in_their_order(
    flavors: tuple[str, ...], images: tuple[str, ...], zones: tuple[str, ...]
) -> None:
    message = convert.spec(
        PresetSpec(
            count=1,
            fallback_flavors=flavors,
            fallback_images=images,
            network=Network(availability_zones=zones),
        )
    )
    assert tuple(message.fallback_flavors) == flavors
    assert tuple(message.fallback_images) == images
    assert tuple(message.network.availability_zones) == zones
