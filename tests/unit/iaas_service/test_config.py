"""The section `iaas` of the configuration file."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from iaas_service.config import Config
from iaas_service.drivers.process import ProcessOptions
from iaas_service.drivers.simulated import SimulatedOptions
from iaas_service.server import running
from vmshepherd_kit import settings
from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import NotFound


def test_nothing_said_means_processes_on_this_machine() -> None:
    config = settings.parse({}, Config)
    assert {name: p.driver for name, p in config.providers.items()} == {"process": "process"}
    assert config.listen.address == "127.0.0.1:50053"
    assert (config.limits.terminations, config.limits.window) == (20, timedelta(minutes=10))


def test_providers_keep_their_order() -> None:
    raw = {"providers": {name: {"driver": "simulated"} for name in ("z", "a", "m")}}
    assert list(settings.parse(raw, Config).providers) == ["z", "a", "m"]


@pytest.mark.parametrize(
    ("old", "new"), [("DummyIaasDriver", "simulated"), ("OpenStackDriver", "openstack")]
)
def test_names_of_the_predecessor_are_known(old: str, new: str) -> None:
    config = settings.parse({"providers": {"p": {"driver": old}}}, Config)
    assert config.providers["p"].driver == new


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"providers": {}}, "iaas.providers"),
        ({"provider": {}}, "iaas.provider"),
        ({"providers": {"p": {}}}, "iaas.providers.p.driver"),
        ({"limits": {"terminations": 0}}, "iaas.limits.terminations"),
        ({"limits": {"windows": "10m"}}, "iaas.limits.windows"),
        ({"limits": {"reboots": 0}}, "iaas.limits.reboots"),
        ({"limits": {"terminations_per_zone": 0}}, "iaas.limits.terminations_per_zone"),
        ({"limits": {"terminations_per_image": "many"}}, "iaas.limits.terminations_per_image"),
    ],
)
def test_what_is_wrong_is_named(raw: dict[str, object], path: str) -> None:
    with pytest.raises(settings.Invalid) as refusal:
        settings.parse(raw, Config, where="iaas")
    assert [finding.path for finding in refusal.value.findings] == [path]


@pytest.mark.parametrize("address", ["10.0.0.0/8", "0.0.0.0/0", "::1", "8.8.8.8", "nonsense"])
def test_simulated_vms_never_have_an_address_that_leads_anywhere(address: str) -> None:
    with pytest.raises(settings.Invalid):
        settings.parse({"address": address}, SimulatedOptions)


def test_simulated_vms_may_share_one_address() -> None:
    options = settings.parse({"address": "127.0.0.1", "latency": 0.1}, SimulatedOptions)
    assert options.address == IPv4Network("127.0.0.1/32")
    assert options.latency == timedelta(milliseconds=100)


def test_flavors_of_processes_are_commands() -> None:
    raw = {"flavors": {"web": {"command": ["nginx", "-g", "daemon off;"], "env": {"A": "b"}}}}
    options = settings.parse(raw, ProcessOptions)
    assert options.flavors["web"].env == {"A": "b"}
    with pytest.raises(settings.Invalid):
        settings.parse({"flavors": {"web": {"command": []}}}, ProcessOptions)


async def test_a_driver_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    raw = {"listen": {"address": "127.0.0.1:0"}, "providers": {"p": {"driver": "moon"}}}
    with pytest.raises(NotFound) as refusal:
        await start(raw, tmp_path)
    assert "simulated" in refusal.value.message


async def test_options_that_a_driver_does_not_know_are_named(tmp_path: Path) -> None:
    provider = {"driver": "simulated", "options": {"latencies": 1}}
    raw = {"listen": {"address": "127.0.0.1:0"}, "providers": {"p": provider}}
    with pytest.raises(settings.Invalid) as refusal:
        await start(raw, tmp_path)
    [finding] = refusal.value.findings
    assert (finding.path, finding.nearest) == ("iaas.providers.p.options.latencies", "latency")


async def start(raw: dict[str, object], folder: Path) -> None:
    suite = Suite(suite_id="s", state_dir=folder, base_dir=folder, embedded=False)
    config = settings.parse(raw, Config)
    async with running(config, suite=suite, clock=SystemClock(), chance=SystemChance()):
        pass
