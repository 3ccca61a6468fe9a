"""What `vmshepherd preset validate` and `vmshepherd config check` find, without a running suite.

Preset files go through the very code of preset_service that reads them in earnest; sections of the
configuration through each service's own settings and those of its drivers.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from admin import printing, services, tables
from admin.options import Asking, Exit
from preset_service import convert
from preset_service.book import Declaration
from preset_service.config import SECTION, Config
from preset_service.domain import MAX_TEXT_BYTES, Finding, Severity
from preset_service.port import GROUP, Place
from preset_service.workshop import Workshop
from vmshepherd.preset.v1 import preset_service_pb2 as api
from vmshepherd_kit import config_file, drivers, entry, settings
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Configuration, Unreadable
from vmshepherd_kit.errors import ShepherdError


def validate(asking: Asking, files: Sequence[Path], config: Path | None) -> None:
    """What is wrong with preset files, each by its place; exits with 1 when one is of no use."""
    try:
        checked = list(zip(files, _with_twins(declarations(files, config)), strict=True))
    except ShepherdError as e:
        raise typer.Exit(entry.complain(e)) from e
    for path, declaration in checked:
        found = [replace(finding, file=str(path)) for finding in declaration.findings]
        messages = convert.findings(found)
        if asking.is_json:
            printing.print_json(api.ValidatePresetResponse(findings=messages), indent=None)
        else:
            fine = f"{path}: fine: preset {declaration.name}"
            printing.print_lines([tables.finding(message) for message in messages] or [fine])
    if any(f.severity == Severity.ERROR for _, each in checked for f in each.findings):
        raise typer.Exit(Exit.FAILURE)


def declarations(files: Sequence[Path], config: Path | None) -> list[Declaration]:
    """What each of these files declares, with the defaults of a configuration if there is one."""
    read = config_file.read(config) if config else config_file.defaults()
    return asyncio.run(_declarations(files, read.parse(SECTION, Config)))


async def _declarations(files: Sequence[Path], config: Config) -> list[Declaration]:
    return [await _declaration(path, config) for path in files]


async def _declaration(path: Path, config: Config) -> Declaration:
    """What the file would declare if its directory were a source."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
        text = content.decode()
    except OSError as e:
        return _unreadable(path, f"cannot be read: {e.strerror}")
    except UnicodeDecodeError:
        return _unreadable(path, "is not a text in UTF-8")
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as unused:
        place = Place(
            name="validate",
            where="validate",
            base_dir=path.parent,
            state_dir=Path(unused),
            clock=clock,
        )
        options = {"path": str(path.parent.absolute())}
        async with drivers.load(GROUP, "directory").open(options, place=place) as source:
            workshop = Workshop(source, defaults=config.defaults, clock=clock)
            return await workshop.check(text, file=path.name)


def _unreadable(path: Path, why: str) -> Declaration:
    return Declaration(
        file=path.name, name=None, spec=None, findings=(Finding(message=why, file=path.name),)
    )


def _with_twins(declarations: Sequence[Declaration]) -> list[Declaration]:
    """Two files may be fine, and yet not together: a name stands for one preset."""
    names = [each.name for each in declarations]
    return [
        replace(each, findings=(*each.findings, _twin(each)))
        if each.name is not None and names.count(each.name) > 1
        else each
        for each in declarations
    ]


def _twin(declaration: Declaration) -> Finding:
    return Finding(
        message=f"{declaration.name!r} is declared by another of these files too",
        file=declaration.file,
        line=declaration.name_line,
        key="name",
    )


def check_configuration(asking: Asking, path: Path) -> None:
    """What is wrong with a configuration file; exits with 1 when something is."""
    try:
        configuration = config_file.read(path)
        found = list(faults(configuration))
        notes = list(configuration.notes)
    except Unreadable as e:
        found, notes = list(e.lines), []
    if asking.is_json:
        print(json.dumps({"findings": found, "notes": notes}, indent=2))
    else:
        printing.print_lines([f"note: {note}" for note in notes])
        printing.print_lines(found or [f"{path}: fine"])
    if found:
        raise typer.Exit(Exit.FAILURE)


def faults(configuration: Configuration) -> Iterator[str]:
    """What is wrong with each section and its drivers, a line each."""
    for name in services.PACKAGES:
        try:
            parsed = configuration.parse(name, services.settings_of(name))
        except Unreadable as e:
            yield from e.lines
            continue
        for group, where, driver, options in _drivers(parsed):
            yield from _driver_faults(configuration, group, where, driver=driver, options=options)


def _drivers(parsed: Any) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Every driver that a section names: its group, the path of its key, its name, its options."""
    if hasattr(parsed, "sources"):
        for index, source in enumerate(parsed.sources):
            yield "preset", f"preset.sources.{index}", source.driver, source.options
    if hasattr(parsed, "providers"):
        for name, provider in parsed.providers.items():
            yield "iaas", f"iaas.providers.{name}", provider.driver, provider.options
    if hasattr(parsed, "driver"):
        yield "runtime", "runtime", parsed.driver, parsed.options


def _driver_faults(
    configuration: Configuration, group: str, where: str, *, driver: str, options: dict[str, Any]
) -> Iterator[str]:
    try:
        known = drivers.load(group, driver)
    except ShepherdError as e:
        finding = settings.Finding(f"{where}.driver", e.message)
        yield from configuration.refusal(settings.Invalid([finding])).lines
        return
    model = getattr(known, "Options", None)
    if model is None:
        return
    try:
        settings.parse(options, model, where=f"{where}.options")
    except settings.Invalid as e:
        yield from configuration.refusal(e).lines
