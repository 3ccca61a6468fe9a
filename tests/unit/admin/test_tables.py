"""Answers in the words of a table."""

from __future__ import annotations

from admin.tables import why
from vmshepherd.orchestrator.v1.view_pb2 import Condition, PresetView

OUTDATED = Condition(code="OUTDATED", message="2 of 4 VMs are of another spec")
AWAY = Condition(code="CLOUD_UNREACHABLE", message="Glance is out of reach")


def test_what_is_only_told_does_not_hide_what_a_preset_is_blocked_by() -> None:
    assert why(PresetView(conditions=[OUTDATED, AWAY])) == "Glance is out of reach (and 1 more)"
    assert why(PresetView(conditions=[OUTDATED])) == "2 of 4 VMs are of another spec"
