"""Settings: models that are parsed once, whole, or refused with every fault named.

Every `config.py` and every driver's options derive from `Settings`.  A key that is not known is a
fault, and the nearest known one is named.  Values are never repeated in a finding: what is wrong
may be a password in the wrong place.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vmshepherd_kit.errors import BadRequest, Violation
from vmshepherd_kit.log import is_secret

Path = tuple[str | int, ...]

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
# A century: longer is a slip, and would overflow somewhere else.
_LONGEST_SECONDS: Final = 100 * 366 * 86400


class Settings(BaseModel):
    """The root of all settings: frozen, and strangers are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


SettingsModel = TypeVar("SettingsModel", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: where, what, and the nearest known key when the key is not known."""

    path: str
    message: str
    nearest: str | None = None
    keys: Path = ()

    def __str__(self) -> str:
        """One line for people."""
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{self.path}: {self.message}{hint}"


class Invalid(BadRequest):
    """Settings that were refused; `findings` name every fault, each with its path."""

    reason = "INVALID_SETTINGS"

    def __init__(self, findings: Sequence[Finding]) -> None:
        lines = [str(finding) for finding in findings]
        violations = [Violation(f.path, f.message) for f in findings]
        super().__init__("; ".join(lines), violations=violations)
        self.findings = tuple(findings)


def parse(
    raw: Mapping[str, Any] | None, model: type[SettingsModel], *, where: str = ""
) -> SettingsModel:
    """The settings in `raw`; Invalid, naming every fault beneath the path `where`, when they are
    none.
    """
    try:
        return model.model_validate({} if raw is None else raw)
    except ValidationError as e:
        found = [_finding(detail, raw, model, where) for detail in e.errors(include_url=False)]
    # Outside of the handler: the library's own error would carry the values along as the context.
    raise Invalid(found)


def duration(value: object) -> timedelta:
    """A length of time of a number of seconds or of a text like `1m30s`, `500ms`, `2h`, `1d`."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _seconds(value.strip())
    else:
        # A TypeError would pass through pydantic as a bug.
        raise ValueError(_NOT_A_DURATION)  # noqa: TRY004
    if math.isnan(seconds) or not 0 <= seconds <= _LONGEST_SECONDS:
        raise ValueError("must be between 0 and a hundred years")
    return timedelta(seconds=seconds)


_NOT_A_DURATION: Final = "must be a number of seconds or a text like 1m30s, 500ms, 2h, 1d"

Duration = Annotated[timedelta, BeforeValidator(duration)]


def _seconds(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(_NOT_A_DURATION)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _finding(detail: ErrorDetails, raw: object, model: type[BaseModel], where: str) -> Finding:
    keys = _real_path(detail["loc"], raw)
    path = ".".join(str(part) for part in (where, *keys) if part != "") or "settings"
    if detail["type"] == "extra_forbidden":
        known = sorted(set(_known_keys(model, keys[:-1])))
        near = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.6) if keys else []
        return Finding(path, "unknown key", near[0] if near else None, keys)
    if detail["type"] == "missing":
        return Finding(path, "is required", None, keys)
    if any(is_secret(str(part)) for part in keys):
        return Finding(path, "is not valid", None, keys)
    return Finding(path, _sentence(detail["msg"]), None, keys)


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _real_path(loc: Path, raw: object) -> Path:
    """The location without what names no key: the library adds branches of unions and of
    functions.
    """
    path: list[str | int] = []
    for index, part in enumerate(loc):
        is_last = index == len(loc) - 1
        if isinstance(raw, Mapping):
            if part in raw:
                raw = raw[part]
            elif not is_last:
                continue
            path.append(part)
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
            path.append(part)
    return tuple(path)


def _known_keys(model: type[BaseModel], path: Path) -> Iterator[str]:
    """The keys that may stand at that path: of all models that its fields' types allow there."""
    models = [model]
    for part in path:
        models = [inner for outer in models for inner in _models_at(outer, part)] or models
    for reached in models:
        for name, field in reached.model_fields.items():
            yield from _names(name, field)


def _models_at(model: type[BaseModel], part: str | int) -> Iterator[type[BaseModel]]:
    for name, field in model.model_fields.items():
        if part in _names(name, field):
            yield from _models_in(field.annotation)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _names(name: str, field: FieldInfo) -> list[str]:
    alias = field.validation_alias or field.alias
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [alias] if isinstance(alias, str) else [name]
