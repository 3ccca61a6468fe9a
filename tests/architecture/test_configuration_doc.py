"""docs/configuration.md and docs/presets.md have each key, its true default, and no other key."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from admin.services import settings_of
from orchestrator.model import Check, Policy
from preset_service import schema
from vmshepherd_kit import drivers, settings
from vmshepherd_kit.config_file import Log

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = ("preset", "runtime", "iaas", "health", "orchestrator")


class Key(NamedTuple):
    """A dotted path, and what stands there when nobody writes it."""

    name: str
    default: Any


class Part(NamedTuple):
    """What stands beneath one heading of one document."""

    document: str
    heading: str
    model: type[BaseModel]
    but: frozenset[str] = frozenset()
    """Keys that are told of elsewhere."""


def models_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Models within a type, each with how a path goes through what holds it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    through = {dict: ".NAME", list: "[]", tuple: "[]"}.get(origin, "")
    inner = arguments if origin in {dict, list, tuple, Union, types.UnionType} else arguments[:1]
    for argument in inner:
        yield from ((through + path, model) for path, model in models_in(argument))


def keys_of(model: type[BaseModel], prefix: str = "", given: Any = None) -> Iterator[Key]:
    """All keys of a model; `given` is the default of what holds it."""
    for name, field in model.model_fields.items():
        path, default = (
            prefix + (field.alias or name),
            getattr(given, name, default_of(name, field)),
        )
        within = list(models_in(field.annotation))
        if not within or any(through for through, _ in within):
            yield Key(path, default)
        for through, inner in within:
            yield from keys_of(inner, f"{path}{through}.", None if through else default)


def default_of(name: str, field: FieldInfo) -> Any:
    """The default of a field; where it is the reader's business, that of the reader."""
    default = field.get_default(call_default_factory=True, validated_data={})
    readers = [model for model in (Policy, Check) if name in model.__dataclass_fields__]
    return getattr(readers[0](), name) if default is None and readers else default


def rows_beneath(document: str, heading: str) -> dict[str, str]:
    """Keys and defaults of the tables right beneath a heading, up to the next one."""
    text = (DOCS / document).read_text()
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/{document} has no heading {heading!r}"
    rows = {}
    for line in found[1].splitlines():
        if (row := re.match(r"\| `([^`]+)`[^|]*\| ([^|]*) \|", line)) is not None:
            rows[row[1]] = row[2].strip()
    return rows


def shown_default(text: str) -> str | None:
    """The default as it is told: in backquotes, or in words."""
    quoted = re.match(r"`([^`]*)`", text)
    return quoted[1] if quoted else None


def is_told(default: Any, text: str) -> bool:
    """Whether a text tells a default, as far as it is a plain value."""
    shown = shown_default(text)
    if default is PydanticUndefined:
        return text.startswith("required")
    if isinstance(default, timedelta):
        return shown is not None and settings.duration(shown) == default
    if isinstance(default, Enum):
        return shown in {default.value, default.name.lower()}
    if isinstance(default, bool):
        return shown == str(default).lower()
    if isinstance(default, int | float | str) and default != "":
        return shown == str(default)
    return True


def parts() -> Iterator[Part]:
    heading = {
        "preset": "`preset`: where presets come from",
        "runtime": "`runtime`: what must not be forgotten",
        "iaas": "`iaas`: the clouds",
        "health": "`health`: the prober",
        "orchestrator": "`orchestrator`: who decides",
    }
    for section in SECTIONS:
        but = {"listen.insecure"}
        if section == "preset":
            but |= {key.name for key in keys_of(schema.Defaults, "defaults.")}
        yield Part("configuration.md", heading[section], settings_of(section), frozenset(but))
    for group in ("preset", "runtime", "iaas"):
        for name in drivers.installed(group):
            model = drivers.load(group, name).Options
            yield Part("configuration.md", f"Driver `{name}`", model)
    for name in drivers.installed("health"):
        yield Part("presets.md", f"Check `{name}`", drivers.load("health", name).options)
    mappings = frozenset({"healthcheck", "iaas", "policy", "network"})
    inner = {
        key.name
        for key in keys_of(schema.PresetKeys)
        if key.name.partition(".")[0] in mappings and "." in key.name
    }
    yield Part("presets.md", "The keys", schema.PresetKeys, frozenset(inner))
    for name, model in (
        ("healthcheck", schema.HealthKeys),
        ("iaas", schema.IaasKeys),
        ("policy", schema.PolicyKeys),
        ("network", schema.NetworkKeys),
    ):
        yield Part("presets.md", name, model)


PARTS = list(parts())
# Told of in the tables although they hold others, or none of a model: for people.
GROUPS = {
    *(f"defaults.{each}" for each in ("healthcheck", "iaas", "policy")),
    *("healthcheck", "iaas", "policy", "network", "tls"),
}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.document}:{part.heading}")
def test_every_key_is_told_of_with_its_default_and_no_other(part: Part) -> None:
    told = rows_beneath(part.document, part.heading)
    keys = {key.name: key.default for key in keys_of(part.model) if key.name not in part.but}
    assert set(keys) - set(told) == set(), "these keys are not told of"
    assert set(told) - set(keys) - GROUPS == set(), "these keys do not exist"
    wrong = {name: told[name] for name in keys if not is_told(keys[name], told[name])}
    assert wrong == {}, "these defaults are others"


def test_the_keys_of_the_suite_are_told_of() -> None:
    told = rows_beneath("configuration.md", "The suite")
    log = {key.name: key.default for key in keys_of(Log, "log.")}
    assert set(told) == {"suite_id", "state_dir", *log, "listen.address", "listen.insecure"}
    assert all(is_told(log[name], told[name]) for name in log)


def test_a_key_that_is_missing_or_has_another_default_would_be_seen() -> None:
    (part,) = [part for part in PARTS if part.heading.startswith("`orchestrator`")]
    keys = {key.name: key.default for key in keys_of(part.model)}
    assert {"session.ttl", "services.iaas", "interval"} <= set(keys)
    assert is_told(keys["session.ttl"], "`20s`")
    assert not is_told(keys["session.ttl"], "`21s`")
    (iaas,) = [part for part in PARTS if part.heading.startswith("`iaas`")]
    names = {key.name for key in keys_of(iaas.model)}
    assert {"providers", "providers.NAME.parallel_calls", "limits.window"} <= names
