"""The section `preset` of the configuration file: where presets come from, and what they take by
default.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from preset_service.reading import checked
from preset_service.schema import Defaults, Name
from vmshepherd_kit.serve import Listen
from vmshepherd_kit.settings import Settings

SECTION: Final = "preset"

# What the sources were called in the configuration files of VmShepherd 1.6.
_FORMER_NAMES: Final = {"DirectoryDriver": "directory", "GitRepoDriver": "git"}


def _todays_name(name: object) -> object:
    return _FORMER_NAMES.get(name, name) if isinstance(name, str) else name


class SourceConfig(Settings):
    """One source; its options are understood by its driver alone."""

    name: Name
    driver: Annotated[str, BeforeValidator(_todays_name)] = "directory"
    options: dict[str, Any] = Field(default_factory=dict)


def _unique(sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
    names = [source.name for source in sources]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"the name {min(twice)} stands for two sources")
    return sources


class Config(Settings):
    """Settings of preset_service."""

    listen: Listen = Listen(address="127.0.0.1:50051")
    sources: Annotated[tuple[SourceConfig, ...], AfterValidator(_unique)] = (
        SourceConfig(name="local", options={"path": "presets.d"}),
    )
    defaults: Annotated[Defaults, AfterValidator(checked)] = Defaults()
