"""A prober that can reach nothing, in every way we know: no VM is destroyed, its preset says so."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import pytest

from tests.e2e import linux
from tests.e2e.suite import HTTP_CHECK, Suite
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

PRESETS = {"web": 3, "cache": 2}
# Far longer than a VM must fail until it is condemned.
LONG_ENOUGH = timedelta(seconds=5)


@dataclass
class Blinding:
    """How the prober was blinded, what the presets then say, and how it is healed."""

    says: str
    heal: Callable[[], object]


def test_no_file_descriptor_left(suite: Suite) -> None:
    def blind(suite: Suite) -> Blinding:
        pid = suite.daemons["health"].pid
        limits = linux.use_up_descriptors(pid)
        return Blinding(
            "CHECK_UNKNOWN", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        )

    blind_and_heal(suite, blind)


def test_killed(suite: Suite) -> None:
    def blind(suite: Suite) -> Blinding:
        suite.daemons["health"].kill()
        return Blinding("CHECK_FAILED", lambda: suite.serve("health"))

    blind_and_heal(suite, blind)


def test_forbidden_to_reach_the_network_of_the_vms(suite: Suite) -> None:
    def blind(suite: Suite) -> Blinding:
        restart_health(suite, allowed_networks=["192.0.2.0/24"])
        return Blinding("CHECK_UNKNOWN", lambda: restart_health(suite, allowed_networks=[]))

    blind_and_heal(suite, blind)


@pytest.mark.parametrize("is_refused", [True, False], ids=["all-refuse", "none-is-reachable"])
def test_cut_off_from_the_network(suite: Suite, is_refused: bool) -> None:  # noqa: FBT001
    """The prober in a network of its own, where it finds nobody; then not even itself.

    It is asked by a socket in the file system, which leads into any network.
    """
    prefix = linux.without_network()
    if prefix is None:
        cut_off_without_rights(suite, is_refused=is_refused)
        return
    suite.config["health"]["listen"] = {"address": "unix:health.sock"}
    suite.config["orchestrator"]["services"]["health"] = "unix:health.sock"

    def blind(suite: Suite) -> Blinding:
        suite.daemons["health"].kill()
        alone = suite.serve("health", before=[*prefix, *linux.WITH_LOOPBACK])
        if not is_refused:
            suite.until_condition("web", "BREAKER_OPEN")
            linux.cut_loopback(alone.pid)
        return Blinding(
            "BREAKER_OPEN" if is_refused else "CHECK_UNKNOWN", lambda: restart_health(suite)
        )

    blind_and_heal(suite, blind)


def cut_off_without_rights(suite: Suite, *, is_refused: bool) -> None:
    """Where nobody may make a network: a port where no VM listens, addresses that are forbidden."""

    def refuse(suite: Suite) -> Blinding:
        wrong = {**HTTP_CHECK, "port": suite.ports["vms"] + 1}
        for name, count in PRESETS.items():
            suite.declare(name, count, healthcheck=wrong)
        return Blinding("BREAKER_OPEN", lambda: declare(suite))

    def forbid(suite: Suite) -> Blinding:
        restart_health(suite, allowed_networks=["198.51.100.0/24"])
        return Blinding("CHECK_UNKNOWN", lambda: restart_health(suite, allowed_networks=[]))

    blind_and_heal(suite, refuse if is_refused else forbid)


def blind_and_heal(suite: Suite, blind: Callable[[Suite], Blinding]) -> None:
    """All that holds however the prober was blinded."""
    declare(suite)
    suite.serve_all()
    before = {name: suite.until_running(name, count) for name, count in PRESETS.items()}
    blinded = blind(suite)
    for name in PRESETS:
        suite.until_condition(name, blinded.says)
        until(partial(is_long_blind, suite, name, blinded.says), f"{name} is long blind")
    assert suite.events("", "", "VM_TERMINATING") == []
    assert len(suite.events("", "", "VM_CREATING")) == sum(PRESETS.values())
    blinded.heal()
    for name, count in PRESETS.items():
        assert set(suite.until_running(name, count)) == set(before[name])
    # And it goes on: what is dead is replaced, what is ill would be.
    victim = next(iter(before["web"].values()))
    os.kill(suite.pid_of(victim), signal.SIGKILL)
    until(lambda: victim.vm_id not in suite.running("web"), "the killed VM is gone")
    suite.until_running("web", PRESETS["web"])
    destroyed = suite.events("", "", "VM_TERMINATING")
    assert [each.vm_id for each in destroyed] == [victim.vm_id]


def is_long_blind(suite: Suite, preset: str, code: str) -> bool:
    """Whether cycles have gone on for long enough since it began."""
    view = suite.preset(preset)
    since = [each.since_time.ToDatetime() for each in view.conditions if each.code == code]
    return bool(since) and view.last_cycle_time.ToDatetime() - since[0] > LONG_ENOUGH


def declare(suite: Suite) -> None:
    """Write the presets."""
    for name, count in PRESETS.items():
        suite.declare(name, count)


def restart_health(suite: Suite, **keys: object) -> None:
    """Another health service, with these settings, in place of the one that runs."""
    suite.daemons["health"].kill()
    suite.configure("health", **keys)
    suite.serve("health")
