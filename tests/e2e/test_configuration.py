"""The configuration of a running suite: a change takes force as a whole, or not at all."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

HOUR_SECONDS = 3600


def test_a_new_interval_takes_force_while_the_suite_runs(suite: Suite) -> None:
    suite.configure("orchestrator", interval="1h")
    suite.declare("web", 1)
    suite.up()
    suite.until_running("web", 1)
    until(lambda: seconds_between_looks(suite) > HOUR_SECONDS / 2, "a settled preset rests for 1 h")
    suite.configure("orchestrator", interval="2s")
    until(lambda: 0 < seconds_between_looks(suite) < 10, "it is looked at every 2 s")
    assert info(suite)["configError"] == ""


def test_sighup_reads_the_file_again_without_a_change(suite: Suite) -> None:
    suite.declare("web", 1)
    daemon = suite.up()
    loaded = info(suite)["configTime"]
    daemon.hang_up()
    until(lambda: info(suite)["configTime"] > loaded, "it was loaded again")
    assert daemon.is_alive


@pytest.mark.parametrize(
    ("section", "keys", "named"),
    [
        ("orchestrator", {"intervall": "5s"}, "intervall"),
        ("orchestrator", {"interval": "often", "soon": "100ms"}, "interval"),
        ("runtime", {"options": {"path": "elsewhere.sqlite"}}, "runtime"),
    ],
    ids=["unknown-key", "wrong-value", "needs-a-restart"],
)
def test_a_configuration_that_cannot_take_force_is_refused_whole_and_managing_goes_on(
    suite: Suite, section: str, keys: dict[str, Any], named: str
) -> None:
    suite.declare("web", 2)
    suite.up()
    before = suite.until_running("web", 2)
    good = {name: dict(suite.config[name]) for name in ("orchestrator", section)}
    # What would be fine alone must not take force either.
    suite.config["orchestrator"]["interval"] = "1h"
    suite.configure(section, **keys)
    until(lambda: named in info(suite)["configError"], f"info says that {named} is refused")
    assert str(suite.file.name) in info(suite)["configError"]
    assert named in suite.command("info").stdout
    os.kill(suite.pid_of(next(iter(before.values()))), signal.SIGKILL)
    until(lambda: set(suite.running("web")) - set(before), "a killed VM is replaced")
    suite.until_running("web", 2)
    assert seconds_between_looks(suite) < 10

    suite.config |= good
    suite.write_config()
    until(lambda: info(suite)["configError"] == "", "the mended file is in force")


def seconds_between_looks(suite: Suite) -> float:
    """From its last cycle to when the next is due at the latest."""
    view = suite.preset("web")
    return (view.next_cycle_time.ToDatetime() - view.last_cycle_time.ToDatetime()).total_seconds()


def info(suite: Suite) -> dict[str, Any]:
    """What `vmshepherd info` says."""
    answer: dict[str, Any] = suite.json_of("info")
    return answer
