"""The marker: what is ours, for sure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iaas_service import marker
from iaas_service.domain import Marker, Vm, VmId, VmState

SOUND = Marker(
    suite_id="suite",
    preset="web.front-1",
    request_id="6d1c3a1e-6c3f-4b0a-9d6e-5a2f4f0f2c11",
    fencing_token=42,
    spec_hash="9f2c",
)


def a_vm(protection: str) -> Vm:
    return Vm(
        vm_id=VmId("1"),
        name="web-1",
        state=VmState.RUNNING,
        create_time=datetime(2030, 1, 1, tzinfo=UTC),
        metadata={marker.PROTECTED: protection},
    )


def test_what_is_written_is_read_again() -> None:
    assert marker.read(marker.write(SOUND), "suite") == SOUND


def test_a_vm_made_anew_bears_another_hash_and_nothing_else_changes() -> None:
    metadata = {"team": "search", marker.PROTECTED: "yes", **marker.write(SOUND)}
    rewritten = marker.rewritten(metadata, spec_hash="77aa")
    assert marker.read(rewritten, "suite") == replace(SOUND, spec_hash="77aa")
    assert {**rewritten, marker.SPEC: "9f2c"} == metadata
    assert marker.rewritten(metadata, spec_hash="") == metadata


def test_other_metadata_do_no_harm() -> None:
    metadata = {"team": "search", **marker.write(SOUND)}
    assert marker.read(metadata, "suite") == SOUND
    assert marker.without(metadata) == {"team": "search"}


def test_the_marker_of_another_suite_is_none() -> None:
    assert marker.read(marker.write(SOUND), "suite2") is None


@pytest.mark.parametrize("key", sorted(marker.KEYS))
def test_a_marker_that_lacks_a_part_is_none(key: str) -> None:
    metadata = marker.write(SOUND)
    del metadata[key]
    assert marker.read(metadata, "suite") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (marker.TOKEN, "0"),
        (marker.TOKEN, "-1"),
        (marker.TOKEN, "+1"),
        (marker.TOKEN, " 1"),
        (marker.TOKEN, "1.0"),
        (marker.TOKEN, "1_0"),
        (marker.TOKEN, "٣"),
        (marker.TOKEN, str(2**61)),
        (marker.TOKEN, "9" * 400),
        (marker.PRESET, ""),
        (marker.PRESET, "../etc"),
        (marker.PRESET, "a" * 129),
        (marker.PRESET, "web\n"),
        (marker.REQUEST, ""),
        (marker.REQUEST, "{6d1c3a1e-6c3f-4b0a-9d6e-5a2f4f0f2c11}"),
    ],
)
def test_a_marker_that_is_not_well_formed_is_none(key: str, value: str) -> None:
    assert marker.read({**marker.write(SOUND), key: value}, "suite") is None


@given(st.dictionaries(st.sampled_from(sorted(marker.KEYS)), st.text()))
def test_no_metadata_break_the_reading(metadata: dict[str, str]) -> None:
    read = marker.read(metadata, metadata.get(marker.SUITE, "suite"))
    assert read is None or marker.write(read) == metadata


@given(st.text())
def test_no_announcement_breaks_the_reading(text: str) -> None:
    moment, note = marker.timed_shutdown({marker.TIMED_SHUTDOWN: text})
    assert moment is None or (moment.tzinfo is not None and not note)


@pytest.mark.parametrize("text", ["true", "True", " yes ", "1", "on"])
def test_a_person_may_protect_in_many_words(text: str) -> None:
    assert marker.is_protected(a_vm(text))


@pytest.mark.parametrize("text", ["", "false", "no", "0", "off"])
def test_what_says_no_protects_nothing(text: str) -> None:
    assert not marker.is_protected(a_vm(text))


def test_a_preset_may_protect_its_vms_and_set_no_other_key_of_ours() -> None:
    assert not marker.is_reserved(marker.PROTECTED)
    assert not marker.is_reserved("team")
    assert all(marker.is_reserved(key) for key in marker.KEYS)
    assert marker.is_reserved("vmshepherd_anything")
