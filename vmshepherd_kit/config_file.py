"""The configuration file: read once, strictly, and handed out section by section.

`entry` and the command read it; each service parses its own section with `Configuration.parse`.
One file serves the whole suite and each service alone.  Every fault is told as
`FILE:LINE: key: what is wrong`.  The file of VmShepherd 1.6 is read as it is: see `predecessor`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints

from vmshepherd_kit import log, predecessor, settings, strict_yaml
from vmshepherd_kit.errors import BadRequest
from vmshepherd_kit.settings import Finding, Settings

Keys = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

SECTIONS: Final = ("preset", "runtime", "iaas", "health", "orchestrator")

_LONGEST: Final = 262_144

# One name of a suite is written into the metadata of every VM: clouds allow this much.
SuiteId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What all services of one suite have in common."""

    suite_id: str
    """Written into every VM's marker: two suites never touch each other's VMs."""
    state_dir: Path
    """Where drivers keep what must survive a restart; absolute."""
    base_dir: Path
    """What relative paths of the configuration are relative to; absolute."""
    embedded: bool
    """True when the whole suite runs in one process."""


class Log(Settings):
    """How much is said, and in which form."""

    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    format: log.Format = "auto"


def _section(value: object) -> object:
    """`iaas:` with nothing behind it is an empty section."""
    return {} if value is None else value


Section = Annotated[dict[str, Any], BeforeValidator(_section), Field(default_factory=dict)]


class _File(Settings):
    suite_id: SuiteId = "vmshepherd"
    state_dir: str | None = None
    log: Log = Log()
    preset: Section
    runtime: Section
    iaas: Section
    health: Section
    orchestrator: Section


class Unreadable(BadRequest):
    """The file is refused; one line a fault: `FILE:LINE: key: what is wrong`."""

    reason = "BAD_CONFIGURATION"

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One file, understood as far as it concerns all services."""

    suite: Suite
    log: Log = field(default_factory=Log)
    path: Path | None = None
    """None when there is no file, and so all defaults."""
    sections: Mapping[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """May hold credentials: never part of a log line."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the file was understood."""
    text: _Text | None = field(default=None, repr=False)

    def section(self, name: str) -> dict[str, Any]:
        """What the file says of one service, as it stands there; {} when it says nothing."""
        return self.sections.get(name, {})

    def parse(self, name: str, model: type[Model]) -> Model:
        """The settings of one service.  Unreadable when they are none."""
        try:
            return settings.parse(self.section(name), model, where=name)
        except settings.Invalid as e:
            raise self.refusal(e) from e

    def refusal(self, invalid: settings.Invalid) -> Unreadable:
        """The same faults, told with file and line: for options that a driver refuses later."""
        where = self.text or _Text(name="defaults")
        return Unreadable([where.sentence(finding) for finding in invalid.findings])

    def line_of(self, keys: Keys) -> int | None:
        """The line of a key of today's form, or of what is nearest to it; None without a file."""
        return self.text.line_of(keys) if self.text else None


@dataclass(frozen=True, kw_only=True)
class _Text:
    """The file as a text with lines, for the places of faults."""

    name: str
    document: strict_yaml.Document | None = None
    origins: Mapping[Keys, Keys] = field(default_factory=dict)

    def sentence(self, finding: Finding) -> str:
        keys = self._original(self._keys(finding.path))
        line = self.line_of(keys)
        key = ".".join(map(str, keys)) or finding.path
        hint = f"; did you mean {finding.nearest!r}?" if finding.nearest else ""
        return f"{self.name}{f':{line}' if line else ''}: {key}: {finding.message}{hint}"

    def line_of(self, keys: Keys) -> int | None:
        if self.document is None:
            return None
        return self.document.line_of(self._original(keys))

    def _original(self, keys: Keys) -> Keys:
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.origins:
                rest = keys[length:]
                old = self.origins[keys[:length]]
                exact = (*old, *rest)
                value = self.document.value if self.document else None
                return exact if _is_there(value, exact) or not _is_there(value, old) else old
        return keys

    def _keys(self, path: str) -> Keys:
        """The keys of a dotted path; a key may hold dots itself: what the file has decides."""
        value: Any = self.document.value if self.document else None
        parts, keys = path.split("."), list[str | int]()
        while parts:
            for length in range(len(parts), 0, -1):
                key = ".".join(parts[:length])
                if isinstance(value, dict) and key in value:
                    break
            else:
                length, key = 1, parts[0]
            at: str | int = int(key) if isinstance(value, list) and key.isdecimal() else key
            value = value[at] if _is_there(value, (at,)) else None
            keys.append(at)
            parts = parts[length:]
        return tuple(keys)


def read(path: Path, *, embedded: bool = False, working_dir: Path | None = None) -> Configuration:
    """The configuration in a file.  Unreadable, naming every fault, when it is none."""
    path, here = path.absolute(), working_dir or Path.cwd()
    shown = _shown(path, here)
    document = _document(path, shown)
    text = _Text(name=shown, document=document)
    raw = document.value if document.value is not None else {}
    try:
        _refuse_unknown(raw)
        done = predecessor.translate(raw, working_dir=here, beside=path.parent)
        text = _Text(name=shown, document=document, origins=done.origins)
        gateway = done.raw.pop("gateway", None)
        parsed = settings.parse(done.raw, _File)
    except settings.Invalid as e:
        raise Unreadable([text.sentence(finding) for finding in e.findings]) from e
    sections = {name: getattr(parsed, name) for name in SECTIONS}
    if gateway is not None:
        sections["gateway"] = gateway
    return Configuration(
        suite=_suite(parsed, path.parent, embedded=embedded),
        log=parsed.log,
        path=path,
        sections=sections,
        notes=tuple(done.notes),
        text=text,
    )


def defaults(*, embedded: bool = False, working_dir: Path | None = None) -> Configuration:
    """The configuration without a file: everything is as each service has it by default."""
    base_dir = (working_dir or Path.cwd()).absolute()
    return Configuration(suite=_suite(settings.parse({}, _File), base_dir, embedded=embedded))


def _document(path: Path, shown: str) -> strict_yaml.Document:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as e:
        raise Unreadable([f"{shown}: cannot be read: {e.strerror}"]) from e
    try:
        return strict_yaml.read(content, max_bytes=_LONGEST)
    except strict_yaml.YamlError as e:
        key = f"{e.key}: " if e.key else ""
        raise Unreadable([f"{shown}:{e.line}: {key}{e.problem}"]) from e


def _refuse_unknown(raw: object) -> None:
    if not isinstance(raw, dict):
        raise settings.Invalid([Finding("", "must be a mapping of sections")])
    known = [*_File.model_fields, *predecessor.KEYS]
    findings = [
        Finding(str(key), "unknown key", _nearest(str(key), known), (str(key),))
        for key in raw
        if key not in known
    ]
    if findings:
        raise settings.Invalid(findings)


def _nearest(key: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.6)), None)


def _suite(parsed: _File, base_dir: Path, *, embedded: bool) -> Suite:
    state_dir = Path(parsed.state_dir).expanduser() if parsed.state_dir else _home_of_state()
    return Suite(
        suite_id=parsed.suite_id,
        state_dir=base_dir / state_dir,
        base_dir=base_dir,
        embedded=embedded,
    )


def _home_of_state() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "vmshepherd"


def _shown(path: Path, working_dir: Path) -> str:
    """As short as the reader will understand it."""
    return str(path.relative_to(working_dir)) if path.is_relative_to(working_dir) else str(path)


def _is_there(value: object, keys: Keys) -> bool:
    for key in keys:
        if isinstance(value, list) and isinstance(key, int):
            value = dict(enumerate(value))
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
