from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.model import Probe, Verdict
from orchestrator.words import called, moment, names, probe_words
from tests.support.given import judged, probes, vm


def test_a_sentence_about_many_vms_names_the_first_of_them() -> None:
    assert names([judged("a"), judged("b")]) == "a, b"
    many = names([judged(f"v{number}") for number in range(3000)])
    assert many.endswith("v8, v9 and 2990 more")


def test_a_vm_is_called_by_its_name_and_by_its_id_where_it_has_none() -> None:
    named = replace(vm("i-1"), name="web-1")
    assert called(named) == "web-1"
    assert called(replace(named, name="")) == "i-1"


def test_a_time_is_told_in_utc_and_one_that_nobody_knows_as_long_past() -> None:
    assert moment(datetime(2030, 1, 1, 12, tzinfo=UTC)) == "2030-01-01 12:00:00 UTC"
    assert moment(None) == "a while ago"


def test_a_probe_is_told_as_its_verdict_and_its_message() -> None:
    said = probe_words(probes(a=Probe(Verdict.UNHEALTHY, "refused"), b=Probe(Verdict.HEALTHY)))
    assert said == {"a": ("UNHEALTHY", "refused"), "b": ("HEALTHY", "")}
