"""A VM that the cloud cannot delete: it is told of, and everybody else is served."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.suite import Suite
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e


def test_a_vm_that_cannot_be_deleted_holds_up_neither_its_preset_nor_others(suite: Suite) -> None:
    stubborn = suite.folder / "stubborn"
    suite.configure("iaas", providers={"stubborn": {"driver": "simulated"}})
    declare(suite, web=3, cache=2)
    command = [sys.executable, "-m", "tests.e2e.stubborn_iaas", str(suite.file), str(stubborn)]
    suite.serve("iaas", command=command)
    suite.serve_all()
    before = suite.until_running("web", 3)
    suite.until_running("cache", 2)
    # The newest is the first to go when there are too many.
    newest = max(before.values(), key=lambda vm: vm.create_time.ToNanoseconds())
    stubborn.write_text(newest.vm_id)

    declare(suite, web=2)
    until(lambda: suite.events("web", newest.vm_id, "TERMINATE_FAILED"), "its deletion failed")
    until(lambda: len(suite.running("web")) == 2, "another one went instead")
    assert newest.vm_id in suite.running("web")
    declare(suite, cache=4)
    suite.until_running("cache", 4)
    other = next(vm_id for vm_id in suite.running("web") if vm_id != newest.vm_id)
    assert suite.command("vm", "terminate", other, "--yes").returncode == 0
    until(lambda: other not in {vm.vm_id for vm in suite.vms("web")}, "its neighbour can go")
    until(lambda: len(suite.running("web")) == 2, "and is replaced")

    stubborn.unlink()
    assert suite.command("vm", "terminate", newest.vm_id, "--yes").returncode == 0
    until(lambda: newest.vm_id not in {vm.vm_id for vm in suite.vms("web")}, "it can go now")
    suite.until_running("web", 2)


def declare(suite: Suite, **counts: int) -> None:
    """Write presets of simulated VMs, at whose addresses nobody listens."""
    for name, count in counts.items():
        suite.declare(name, count, healthcheck={"driver": "dummy"})
