"""The hash that VMs bear."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from preset_service import reading
from preset_service.domain import Attachment, HealthCheck, Network, Policy, PresetSpec, Replace
from preset_service.fingerprint import spec_hash
from preset_service.reading import Draft
from preset_service.schema import Defaults

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

FULL = """\
count: 3
flavor: small
image: web-1
meta_tags: {role: web}
iaas: {provider: os, region: r1}
network: {security_groups: [a], subnets: [s], availability_zone: z}
"""
ONES = """\
count: 2
flavour: m1
image: [jammy]
network: {availability_zone: [nova]}
"""


def test_the_hash_never_changes_between_versions() -> None:
    # All VMs of all installations would be replaced: this value may not be adapted to the code.
    assert spec_hash(SPEC) == ("3dff30049ad67fc967d82081993502a075fbf08c30a025366495a08cbc2473ec")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count: 1", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        (FULL, "25cf0a71a328f205aa3b07fe6e54d7ab27af6654ac661d81da4e8ff62dd60cc3"),
        (ONES, "fd3fdd0aecc84a6f18ac62fc8c7e446e329a78e489e0752aac359ce4f449d32e"),
    ],
)
def test_no_text_of_a_preset_changes_its_hash_between_versions(text: str, expected: str) -> None:
    # Of the first version, which knew no lists of one: these values may not be adapted to the code.
    draft = reading.draft(text.encode(), file="web.yaml", defaults=Defaults())
    assert isinstance(draft, Draft)
    assert spec_hash(draft.spec) == expected


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
        replace(SPEC, policy=Policy(replace=Replace.ROLLING, canary=3)),
        replace(SPEC, fallback_flavors=("m1.large",)),
        replace(SPEC, fallback_images=("focal",)),
        replace(SPEC, network=replace(SPEC.network, availability_zones=("a", "b"))),
        replace(SPEC, meta_tags={"a": "b", "k": "v"}),
        replace(SPEC, network=replace(SPEC.network, security_groups=("b", "a", "b"))),
        replace(SPEC, iaas_options={"disk": {"size": 20.0}, "region": "r"}),
    ],
)
def test_whatever_shapes_no_vm_rolls_no_vm(same: PresetSpec) -> None:
    assert spec_hash(same) == spec_hash(SPEC)
