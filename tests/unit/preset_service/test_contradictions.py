"""What is said of a policy that does nothing, or not what it seems to."""

from __future__ import annotations

from typing import Any

import pytest

from preset_service import reading
from preset_service.domain import Finding, Severity
from preset_service.reading import Draft
from preset_service.schema import Defaults
from vmshepherd_kit import settings

HTTP = "healthcheck: {driver: http}"
WATCHED = "healthcheck: {driver: http, observe_only: true}"


def found_in(text: str, defaults: dict[str, Any] | None = None) -> tuple[Finding, ...]:
    draft = reading.draft(
        f"count: 4\n{text}".encode(), file="web.yaml", defaults=settings.parse(defaults, Defaults)
    )
    return draft.warnings if isinstance(draft, Draft) else draft.findings


@pytest.mark.parametrize(
    ("policy", "key", "why"),
    [
        ("{canary: 2}", "canary", "replace: rolling"),
        ("{canary: 2, replace: on_failure}", "canary", "replace: rolling"),
        ("{batch_pause: 1m, replace: never}", "batch_pause", "replace: rolling"),
        ("{removal_grace: 2d}", "removal_grace", "on_remove: delete"),
        ("{removal_grace: 5m}", "removal_grace", "on_remove: delete"),
        ("{keep_failed_time: 1h}", "keep_failed_time", "keep_failed too"),
        ("{keep_failed_time: 1h, keep_failed: 0}", "keep_failed_time", "keep_failed too"),
        ("{deletion_window: 1h}", "deletion_window", "max_deletions_per_window"),
        ("{reboots: 1}", "reboots", "healthcheck"),
        ("{rebuilds: 1}", "rebuilds", "healthcheck"),
        ("{replace: rolling, canary: 5}", "canary", "more than count, 4"),
        ("{replace: rolling, min_healthy_time: 61m}", "min_healthy_time", "each batch"),
        ("{max_lifetime: 30}", "max_lifetime", "all the time"),
        ("{on_remove: delete, removal_grace: 0}", "removal_grace", "lost"),
    ],
)
def test_a_doubtful_policy_is_used_with_a_warning(policy: str, key: str, why: str) -> None:
    [warning] = found_in(f"policy: {policy}")
    assert (warning.file, warning.line, warning.key) == ("web.yaml", 2, f"policy.{key}")
    assert why in warning.message
    assert warning.severity is Severity.WARNING


def test_a_check_that_only_observes_repairs_nothing() -> None:
    assert found_in(f"{WATCHED}\npolicy: {{reboots: 1}}")
    assert not found_in(f"{HTTP}\npolicy: {{reboots: 1}}")


@pytest.mark.parametrize(
    "policy",
    [
        "{replace: rolling, canary: 4, min_healthy_time: 1h, batch_pause: 1m}",
        "{on_remove: delete, removal_grace: 1h, max_lifetime: 1h}",
        "{keep_failed: 1, keep_failed_time: 1h}",
        "{max_deletions_per_window: 5, deletion_window: 1h}",
        "{max_lifetime: 7d, batch_pause: 10m}",
        "{canary: 0, batch_pause: 0, reboots: 0, rebuilds: 0}",
    ],
)
def test_a_policy_that_does_what_it_says_raises_no_doubt(policy: str) -> None:
    assert found_in(f"policy: {policy}") == ()


def test_nobody_is_warned_of_what_the_defaults_say() -> None:
    defaults = {
        "policy": {"removal_grace": "2d", "canary": 5, "batch_pause": "1m", "reboots": 1,
                   "keep_failed_time": "1h", "deletion_window": "1h", "max_lifetime": "1m",
                   "min_healthy_time": "2h"}
    }  # fmt: skip
    assert found_in("policy: {max_surge: 1}", defaults) == ()


def test_what_the_defaults_say_gives_a_key_its_effect() -> None:
    defaults = {"policy": {"replace": "rolling", "on_remove": "delete", "keep_failed": 2}}
    assert not found_in("policy: {canary: 2, removal_grace: 2d, keep_failed_time: 1h}", defaults)
    assert found_in("policy: {on_remove: keep, removal_grace: 2d}", defaults)


def test_a_policy_that_can_replace_nothing_is_an_error_with_the_way_out() -> None:
    [finding] = found_in("policy: {max_surge: 0, max_unavailable: 0}")
    assert finding.severity is Severity.ERROR
    assert "set one of them to 1" in finding.message


def test_a_broken_text_tells_its_doubts_too() -> None:
    found = found_in("policy: {canary: 3, max_surge: 0, max_unavailable: 0}")
    assert {each.key: each.severity for each in found} == {
        "policy": Severity.ERROR,
        "policy.canary": Severity.WARNING,
    }
