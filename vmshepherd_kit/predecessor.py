"""The configuration file of VmShepherd 1.6, translated into sections of today.

`config_file` calls it for every file; a file without the former keys leaves as it came.  Pure, but
for one look at which of two directories exists.  It invents nothing: what cannot be carried over
is a note or a fault, never silence.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field

from vmshepherd_kit import settings
from vmshepherd_kit.settings import Duration, Finding, Settings

Keys = tuple[str | int, ...]

KEYS: Final = ("log_level", "http", "worker_interval", "presets", "defaults")

PRESET_DRIVERS: Final = {"DirectoryDriver": "directory", "GitRepoDriver": "git"}
RUNTIME_DRIVERS: Final = {
    "InMemoryDriver": "memory",
    "PostgresDriver": "postgres",
    "ZookeeperDriver": "zookeeper",
}
# The driver's name of today, and the provider that stands for it.
IAAS_DRIVERS: Final = {
    "DummyIaasDriver": ("simulated", "dummy"),
    "OpenStackDriver": ("openstack", "openstack"),
}
Method = Literal[
    "list_presets",
    "list_presets_with_tags",
    "get_preset_tags",
    "list_vms",
    "terminate_vm",
    "get_vm_metadata",
    "get_vm_ip",
]

_RUNTIME_KEYS: Final = frozenset({"listen", "driver", "options"})
# What a preset may choose for itself, and so what its defaults may hold; the rest is the
# provider's.
_PRESET_IAAS_KEYS: Final = frozenset({"project_name", "project_domain_name", "region"})


class _Api(Settings):
    allowed_methods: tuple[Method, ...] = get_args(Method)


class _Http(Settings):
    listen_port: Annotated[int, Field(strict=True, ge=1, le=65535)] = 8888
    api: _Api = _Api()


class _Presets(Settings):
    driver: Literal["DirectoryDriver", "GitRepoDriver"]
    path: str | None = None
    repositories: dict[str, str] | None = None
    clone_dir: str | None = None


class _Defaults(Settings):
    iaas: dict[str, Any] | None = None
    healthcheck: dict[str, Any] | None = None


class _Former(Settings):
    """The former keys of a file, whatever else stands in it."""

    log_level: str | None = None
    http: _Http | None = None
    worker_interval: Duration | None = None
    presets: _Presets | None = None
    defaults: _Defaults | None = None


@dataclass(kw_only=True)
class Translation:
    """A file in the form of today."""

    raw: dict[str, Any]
    origins: dict[Keys, Keys] = field(default_factory=dict)
    """Where a translated key stood: for the lines of faults."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of it."""


def translate(raw: Mapping[str, Any], *, working_dir: Path, beside: Path) -> Translation:
    """The file in the form of today.  Invalid, with the former keys' paths, when they are wrong or
    contradict new ones.

    Relative paths of the former keys are relative to `working_dir`, as they were; where nothing is
    there, to `beside`.
    """
    former = {key: _without_params(raw[key]) for key in KEYS if key in raw}
    parsed = settings.parse(former, _Former)
    done = Translation(raw={k: copy.deepcopy(v) for k, v in raw.items() if k not in KEYS})
    faults = list(_contradictions(raw))
    if faults:
        raise settings.Invalid(faults)
    _log(done, parsed)
    _interval(done, former)
    _http(done, parsed)
    _runtime(done)
    faults += _presets(done, parsed.presets, working_dir, beside)
    faults += _defaults(done, parsed.defaults)
    if faults:
        raise settings.Invalid(faults)
    return done


def _contradictions(raw: Mapping[str, Any]) -> Iterator[Finding]:
    rivals: list[tuple[Keys, Keys]] = [
        (("log_level",), ("log", "level")),
        (("http",), ("gateway",)),
        (("worker_interval",), ("orchestrator", "interval")),
        (("presets",), ("preset", "sources")),
        (("defaults", "iaas"), ("preset", "defaults", "iaas")),
        (("defaults", "healthcheck"), ("preset", "defaults", "healthcheck")),
    ]
    for old, new in rivals:
        if _has(raw, old) and _has(raw, new):
            said = (
                f"says the same as {'.'.join(map(str, new))}, which this file has too: remove one"
            )
            yield Finding(".".join(map(str, old)), said, None, old)


def _log(done: Translation, parsed: _Former) -> None:
    if parsed.log_level is not None:
        _put(done, ("log", "level"), parsed.log_level.lower(), origin=("log_level",))


def _interval(done: Translation, former: Mapping[str, Any]) -> None:
    if former.get("worker_interval") is not None:
        origin = ("worker_interval",)
        _put(done, ("orchestrator", "interval"), former["worker_interval"], origin=origin)


def _http(done: Translation, parsed: _Former) -> None:
    if parsed.http is None:
        return
    gateway = {
        "listen": {"address": f"127.0.0.1:{parsed.http.listen_port}"},
        "allowed_methods": list(parsed.http.api.allowed_methods),
    }
    _put(done, ("gateway",), gateway, origin=("http",))
    done.notes.append("http is kept, and nothing serves it yet: use the command or the gRPC API")


def _runtime(done: Translation) -> None:
    runtime = done.raw.get("runtime")
    if not isinstance(runtime, dict) or runtime.get("driver") not in RUNTIME_DRIVERS:
        return
    options = dict(runtime.get("options") or {})
    given = _without_params(runtime)
    for key in [key for key in given if key not in _RUNTIME_KEYS]:
        options[key] = given[key]
        done.origins["runtime", "options", key] = ("runtime", key)
    kept = {key: given[key] for key in given if key in _RUNTIME_KEYS}
    done.raw["runtime"] = {**kept, "driver": RUNTIME_DRIVERS[runtime["driver"]]}
    if options:
        done.raw["runtime"]["options"] = options


def _presets(
    done: Translation, presets: _Presets | None, working_dir: Path, beside: Path
) -> list[Finding]:
    if presets is None:
        return []
    if presets.driver == "DirectoryDriver":
        if not presets.path:
            return [Finding("presets.path", "is required", None, ("presets",))]
        path = _where(presets.path, working_dir, beside)
        sources = [{"name": "local", "driver": "directory", "options": {"path": str(path)}}]
    else:
        if not presets.repositories:
            return [Finding("presets.repositories", "is required", None, ("presets",))]
        clones = {"clone_dir": presets.clone_dir} if presets.clone_dir else {}
        sources = [
            {"name": name, "driver": "git", "options": {"url": url, **clones}}
            for name, url in presets.repositories.items()
        ]
    _put(done, ("preset", "sources"), sources, origin=("presets",))
    return []


def _defaults(done: Translation, defaults: _Defaults | None) -> list[Finding]:
    if defaults is None:
        return []
    if defaults.healthcheck is not None:
        keys: Keys = ("preset", "defaults", "healthcheck")
        _put(done, keys, dict(defaults.healthcheck), origin=("defaults", "healthcheck"))
    return _default_iaas(done, dict(defaults.iaas)) if defaults.iaas is not None else []


def _default_iaas(done: Translation, iaas: dict[str, Any]) -> list[Finding]:
    """Credentials move to the provider; what a preset may choose goes to its defaults."""
    origin: Keys = ("defaults", "iaas")
    given = _without_params(iaas)
    named = given.pop("driver", None)
    if named not in IAAS_DRIVERS:
        known = ", ".join(IAAS_DRIVERS)
        return [
            Finding("defaults.iaas.driver", f"must be one of {known}", None, (*origin, "driver"))
        ]
    driver, provider = IAAS_DRIVERS[named]
    if _has(done.raw, ("iaas", "providers", provider)):
        said = f"names the provider {provider!r}, which iaas.providers declares too: remove one"
        return [Finding("defaults.iaas", said, None, origin)]
    chosen = {key: given[key] for key in given if key in _PRESET_IAAS_KEYS}
    if driver == "simulated" and len(given) > len(chosen):
        dropped = ", ".join(key for key in given if key not in chosen)
        done.notes.append(f"defaults.iaas: {dropped} dropped: simulated VMs need no credentials")
        given = {}
    options = {"options": given} if given else {}
    # The first provider is the default one.
    others = _mapping(_mapping(done.raw.get("iaas")).get("providers"))
    _put(done, ("iaas", "providers"), {provider: {"driver": driver, **options}, **others})
    done.origins["iaas", "providers", provider] = origin
    _put(done, ("preset", "defaults", "iaas"), {"provider": provider, **chosen}, origin=origin)
    return []


def _where(path: str, working_dir: Path, beside: Path) -> Path:
    here, there = working_dir / Path(path).expanduser(), beside / path
    return there if there.is_dir() and not here.is_dir() else here


def _without_params(value: object) -> Any:
    """Options stood beside `driver` or beneath `driver_params`, which means the same."""
    if not isinstance(value, dict) or not isinstance(value.get("driver_params"), dict):
        return value
    beside = {key: inner for key, inner in value.items() if key != "driver_params"}
    return {**value["driver_params"], **beside}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _has(raw: Mapping[str, Any], keys: Keys) -> bool:
    value: Any = raw
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True


def _put(done: Translation, keys: Keys, value: object, *, origin: Keys | None = None) -> None:
    *parents, last = keys
    inner = done.raw
    for key in parents:
        # A section of another form is left as it is: its own model refuses it by name.
        below = inner.get(str(key)) or {}
        if not isinstance(below, dict):
            return
        inner[str(key)] = below
        inner = below
    inner[str(last)] = value
    if origin is not None:
        done.origins[keys] = origin
