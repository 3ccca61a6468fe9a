"""What a preset may wish for, and what Nova takes at most: refused before anything is asked."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from iaas_service.domain import Attachment, Spec
from iaas_service.drivers.openstack import wishes
from vmshepherd_kit.errors import BadRequest


def refused(**fields: Any) -> list[str]:
    """The fields that are named when such a spec is refused."""
    spec = Spec(**{"flavor": "small", "image": "debian", **fields})
    with pytest.raises(BadRequest) as refusal:
        wishes.require_fitting(spec, wishes.options(spec.options))
    return [violation.field for violation in refusal.value.violations]


def accepted(**fields: Any) -> None:
    spec = Spec(**{"flavor": "small", "image": "debian", **fields})
    wishes.require_fitting(spec, wishes.options(spec.options))


def test_an_unknown_option_is_named_with_the_nearest_known() -> None:
    with pytest.raises(BadRequest, match="did you mean 'server_group'") as refusal:
        wishes.options({"server_grup": "affinity"})
    assert [v.field for v in refusal.value.violations] == ["spec.options.server_grup"]


def test_numbers_of_the_wire_are_taken_as_whole_ones() -> None:
    options = wishes.options({"boot_volume": {"size": 20.0}})
    assert options.boot_volume is not None
    assert options.boot_volume.size == 20
    assert options.boot_volume.delete_on_termination


def test_image_and_flavor_are_required_and_both_are_told() -> None:
    assert refused(image="", flavor="") == ["spec.image", "spec.flavor"]


def test_a_family_stands_for_the_image_and_not_beside_it() -> None:
    accepted(image="", options={"image_family": "debian"})
    assert refused(options={"image_family": "debian"}) == ["spec.options.image_family"]


def test_no_network_and_a_network_contradict_each_other() -> None:
    named = (Attachment(network="private"),)
    assert refused(networks=named, options={"networks": "none"}) == ["spec.options.networks"]


def test_one_address_is_for_one_network() -> None:
    two = (Attachment(network="a"), Attachment(network="b"))
    assert refused(networks=two, options={"fixed_ip": "10.0.0.9"}) == ["spec.options.fixed_ip"]


def test_user_data_are_measured_as_nova_takes_them() -> None:
    accepted(user_data="x" * 49_149)
    assert len(wishes.encoded("x" * 49_149)) <= 65_535
    assert refused(user_data="x" * 49_150) == ["spec.user_data"]


def test_user_data_that_are_no_ascii_are_measured_in_bytes() -> None:
    accepted(user_data="ä" * 24_574)
    assert refused(user_data="ä" * 24_575) == ["spec.user_data"]


def test_user_data_arrive_as_they_were() -> None:
    assert base64.b64decode(wishes.encoded("#!/bin/sh\necho ä\n")).decode() == "#!/bin/sh\necho ä\n"


@pytest.mark.parametrize("key", ["vmshepherd_suite", "a/b", "ä"])
def test_keys_of_metadata_that_cannot_be_are_named(key: str) -> None:
    assert refused(metadata={key: "x"}) == [f"spec.metadata.{key}"]


def test_a_person_may_protect_a_whole_preset_by_metadata() -> None:
    accepted(metadata={"vmshepherd_protected": "true"})


def test_every_fault_is_told_at_once() -> None:
    found = refused(image="", user_data="x" * 60_000, metadata={"a/b": "x"})
    assert found == ["spec.image", "spec.user_data", "spec.metadata.a/b"]


def test_every_option_of_a_preset_is_told_of() -> None:
    text = (Path(__file__).parents[4] / "docs/openstack.md").read_text()
    section = text.partition("Beneath `iaas:`")[2].partition("\n## ")[0]
    told = {key for row in section.splitlines() if row.startswith("|") for key in _quoted(row)}
    assert set(wishes.PresetOptions.model_fields) - told == set()


def _quoted(row: str) -> list[str]:
    return re.findall(r"`(\w+)`", row)
