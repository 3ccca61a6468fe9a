"""The hash that VMs bear."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from preset_service.domain import Attachment, HealthCheck, Network, Policy, PresetSpec
from preset_service.fingerprint import spec_hash

SPEC = PresetSpec(
    count=3,
    provider="os",
    flavor="m1.small",
    image="jammy",
    network=Network(
        security_groups=("a", "b"),
        availability_zone="nova",
        attachments=(Attachment(subnet="s"), Attachment(network="n", subnet="t")),
    ),
    user_data="#!/bin/sh\n",
    meta_tags={"k": "v", "a": "b"},
    key_name="ops",
    iaas_options={"region": "r", "disk": {"size": 20}},
)


def test_the_hash_never_changes_between_versions() -> None:
    # All VMs of all installations would be replaced: this value may not be adapted to the code.
    assert spec_hash(SPEC) == ("3dff30049ad67fc967d82081993502a075fbf08c30a025366495a08cbc2473ec")


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, image="noble"),
        replace(SPEC, flavor="m1.large"),
        replace(SPEC, user_data=""),
        replace(SPEC, key_name="dev"),
        replace(SPEC, provider="ec2"),
        replace(SPEC, meta_tags={"k": "w"}),
        replace(SPEC, iaas_options={"region": "s"}),
        replace(SPEC, network=replace(SPEC.network, availability_zone="other")),
        replace(SPEC, network=replace(SPEC.network, attachments=SPEC.network.attachments[::-1])),
        replace(SPEC, network=replace(SPEC.network, security_groups=("a",))),
    ],
)
def test_whatever_shapes_a_vm_changes_the_hash(other: PresetSpec) -> None:
    assert spec_hash(other) != spec_hash(SPEC)


@pytest.mark.parametrize(
    "same",
    [
        replace(SPEC, count=9),
        replace(SPEC, healthcheck=HealthCheck(driver="http")),
        replace(SPEC, policy=Policy(max_surge=3)),
        replace(SPEC, panel_links={"a": "https://b"}),
        replace(SPEC, manage_interval=timedelta(seconds=1)),
        replace(SPEC, unmanaged=True),
        replace(SPEC, meta_tags={"a": "b", "k": "v"}),
        replace(SPEC, network=replace(SPEC.network, security_groups=("b", "a", "b"))),
        replace(SPEC, iaas_options={"disk": {"size": 20.0}, "region": "r"}),
    ],
)
def test_whatever_shapes_no_vm_rolls_no_vm(same: PresetSpec) -> None:
    assert spec_hash(same) == spec_hash(SPEC)
