"""The section `preset` of the configuration file."""

from __future__ import annotations

from typing import Any

import pytest

from preset_service.config import Config
from vmshepherd_kit import settings


def test_an_absent_section_is_a_directory_on_loopback() -> None:
    config = settings.parse({}, Config)
    assert config.listen.address == "127.0.0.1:50051"
    [source] = config.sources
    assert (source.name, source.driver, source.options) == (
        "local", "directory", {"path": "presets.d"},
    )  # fmt: skip


def test_former_names_of_drivers_are_understood() -> None:
    config = settings.parse({"sources": [{"name": "a", "driver": "DirectoryDriver"}]}, Config)
    assert config.sources[0].driver == "directory"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"sources": [{"name": "a"}, {"name": "a"}]}, "sources"),
        ({"sources": [{"name": "../a"}]}, "sources.0.name"),
        ({"defaults": {"iaas": {"auth_url": "https://x"}}}, "defaults"),
        ({"defaults": {"healthcheck": {"falls": 3}}}, "defaults"),
        ({"defaults": {"policy": {"max_surge": "1"}}}, "defaults.policy.max_surge"),
        ({"default": {}}, "default"),
    ],
)
def test_faults_are_told_by_their_path(raw: dict[str, Any], path: str) -> None:
    with pytest.raises(settings.Invalid) as refused:
        settings.parse(raw, Config)
    assert [finding.path for finding in refused.value.findings] == [path]
