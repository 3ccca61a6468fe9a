"""`vmshepherd doctor`, as a newcomer meets it before the first `up`, and an operator after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.suite import Suite

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples" / "openstack"


class Diagnosis:
    """What one run told."""

    def __init__(self, suite: Suite, *arguments: str) -> None:
        done = suite.command("doctor", "-c", str(suite.file), *arguments, "-o", "json")
        assert done.stdout, done.stderr
        self.code = done.returncode
        self.told: dict[str, Any] = json.loads(done.stdout)

    def of(self, subject: str, check: str) -> list[dict[str, str]]:
        return [
            each
            for each in self.told["checks"]
            if (each["subject"], each["check"]) == (subject, check)
        ]

    def status(self, subject: str, check: str) -> str:
        [found] = self.of(subject, check)
        return found["status"]


@pytest.fixture
def suite(suite: Suite) -> Suite:
    suite.configure("iaas", providers={"sim": {"driver": "simulated", "options": {"quota": 3}}})
    return suite


def test_before_the_first_start_all_is_checked_and_nothing_is_left_running(suite: Suite) -> None:
    suite.declare("web", 2, healthcheck=None)
    diagnosis = Diagnosis(suite)
    assert diagnosis.code == 0, diagnosis.told
    assert diagnosis.told["wrong"] == 0
    assert diagnosis.status("suite", "services") == "unchecked"
    assert diagnosis.status("runtime", "store") == "ok"
    assert diagnosis.status("preset", "source") == "ok"
    assert diagnosis.status("sim", "quota") == "ok"
    assert diagnosis.status("sim", "demand") == "ok"
    again = Diagnosis(suite)
    assert again.status("suite", "services") == "unchecked"


def test_each_thing_that_is_wrong_is_told_with_the_way_out(suite: Suite) -> None:
    suite.declare("web", 4, healthcheck=None)
    suite.declare("far", 1, healthcheck=None, iaas="nowhere")
    suite.write_preset("bad", "count: many\n")
    diagnosis = Diagnosis(suite)
    assert diagnosis.code == 1
    wrong = {
        (each["subject"], each["check"]): each
        for each in diagnosis.told["checks"]
        if each["status"] == "wrong"
    }
    assert set(wrong) == {("bad", "file"), ("sim", "demand"), ("far", "spec")}
    assert "bad.yaml:1" in wrong["bad", "file"]["message"]
    assert "4 vms more are wanted, and 3 are left" in wrong["sim", "demand"]["message"]
    assert "'nowhere'; there are: sim" in wrong["far", "spec"]["message"]
    assert all(each["way_out"] for each in wrong.values())


def test_a_configuration_that_is_wrong_is_told_with_its_line(suite: Suite) -> None:
    suite.configure("iaas", providers={"sim": {"driver": "simulated", "options": {"qouta": 3}}})
    diagnosis = Diagnosis(suite)
    assert diagnosis.code == 1
    [fault] = diagnosis.of("file", "configuration")
    assert "did you mean 'quota'?" in fault["message"]
    assert len(diagnosis.told["checks"]) == 1


def test_a_store_that_cannot_be_opened_hides_nothing_else(suite: Suite) -> None:
    suite.configure("runtime", driver="sqlite", options={"path": "/proc/none/runtime.db"})
    diagnosis = Diagnosis(suite)
    assert diagnosis.code == 1
    [fault] = diagnosis.of("runtime", "service")
    assert "/proc/none" in fault["message"]
    assert diagnosis.status("sim", "listing") == "ok"


def test_one_preset_is_tried_alone_and_an_unknown_one_is_said_to_be_so(suite: Suite) -> None:
    suite.declare("web", 1, healthcheck=None)
    suite.declare("far", 1, healthcheck=None, iaas="nowhere")
    assert Diagnosis(suite, "--preset", "web").code == 0
    done = suite.command("doctor", "-c", str(suite.file), "--preset", "wbe")
    assert done.returncode == 3
    assert "there is no preset 'wbe'" in done.stderr


def test_of_a_suite_that_runs_the_services_themselves_are_asked(suite: Suite) -> None:
    suite.declare("web", 2, healthcheck=None)
    suite.serve_all()
    suite.until_running("web", 2)
    diagnosis = Diagnosis(suite)
    assert diagnosis.code == 0, diagnosis.told
    services = ("runtime", "preset", "iaas", "health", "orchestrator")
    assert {diagnosis.status(name, "service") for name in services} == {"ok"}
    assert diagnosis.status("orchestrator", "versions") == "ok"
    assert diagnosis.status("orchestrator", "suite") == "ok"
    [listing] = diagnosis.of("sim", "listing")
    assert listing["message"] == "2 VMs of this suite"
    [demand] = diagnosis.of("sim", "demand")
    assert demand["message"].startswith("0 VMs to be made")

    suite.daemons["health"].kill()
    diagnosis = Diagnosis(suite)
    assert diagnosis.code == 1
    [health] = diagnosis.of("health", "service")
    assert health["status"] == "wrong"
    assert "vmshepherd serve health" in health["way_out"]


def test_for_people_there_is_a_line_a_check_and_a_sum(suite: Suite) -> None:
    suite.declare("far", 1, healthcheck=None, iaas="nowhere")
    done = suite.command("doctor", "-c", str(suite.file))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.split()[:3] == ["wrong", "far", "spec"] for line in lines)
    assert any(line.strip().startswith("→ correct far.yaml") for line in lines)
    assert "1 wrong" in lines[-1]


def test_the_example_for_an_openstack_is_fine_but_for_the_cloud_that_it_names(suite: Suite) -> None:
    assert suite.command("config", "check", str(EXAMPLE / "vmshepherd.yaml")).returncode == 0
    presets = [str(path) for path in (EXAMPLE / "presets.d").iterdir()]
    assert presets
    assert suite.command("preset", "validate", *presets).returncode == 0
