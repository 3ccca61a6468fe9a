"""The text of a preset file → a draft of the preset, or findings that name file, line and key.

Pure: no file is opened, no template is rendered.  `workshop` calls it for files, and for texts that
are only to be checked; `config` has the defaults checked by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final

from preset_service import contradictions, credentials, merging
from preset_service.domain import MAX_TEXT_BYTES, NAME, Finding, PresetSpec, Severity
from preset_service.port import Reference
from preset_service.schema import Defaults, OpenKeys, PresetKeys
from vmshepherd_kit import settings, strict_yaml

Path = tuple[str | int, ...]

# No preset needs as many; to explain what is wrong with each of them could take minutes.
_MOST_VALUES: Final = 2_000
_MOST_FINDINGS: Final = 50

_FILE_SCHEME: Final = "file://"
# What an unreadable text says of its name, for showing the fault where it is looked for.
_NAME_LINE: Final = re.compile(
    rb"^name:[ \t]*['\"]?([A-Za-z0-9._-]+)['\"]?[ \t]*\r?$", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A preset whose user data are still to be fetched or rendered."""

    file: str
    name: str
    name_line: int
    spec: PresetSpec
    """Complete but for the user data."""
    user_data: str | Reference = field(repr=False)
    user_data_line: int
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A text that declares no usable preset."""

    file: str
    name: str | None
    """The name that it seems to mean."""
    findings: tuple[Finding, ...]


class Unusable(Exception):
    """The findings that keep a text from being used."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__(findings)
        self.findings = tuple(findings)


def draft(content: bytes, *, file: str, defaults: Defaults) -> Draft | Rejected:
    """What the text of one file declares."""
    try:
        document = _document(content)
    except Unusable as e:
        return _rejected(e, file, _unread_name(content, file))
    try:
        return _draft(document, file, defaults)
    except Unusable as e:
        return _rejected(e, file, _seeming_name(document.value, file))


def checked(defaults: Defaults) -> Defaults:
    """Defaults that any preset could have written itself; ValueError otherwise."""
    faults = [
        f"{'.'.join(map(str, path))}: {message}" + (f"; did you mean {near!r}?" if near else "")
        for path, message, near in _faults(defaults)
    ]
    if faults:
        raise ValueError("; ".join(faults))
    return defaults


def unreadable(problem: str, *, file: str) -> Rejected:
    """A file whose bytes could not be had."""
    return Rejected(file=file, name=_stem(file), findings=(Finding(message=problem, file=file),))


def _rejected(unusable: Unusable, file: str, name: str | None) -> Rejected:
    return Rejected(file=file, name=name, findings=_placed(unusable.findings, file))


def _placed(findings: Iterable[Finding], file: str) -> tuple[Finding, ...]:
    """The first of them, in order of their lines."""
    ordered = sorted(findings, key=lambda finding: finding.line)[:_MOST_FINDINGS]
    return tuple(replace(each, file=file) for each in ordered)


def _document(content: bytes) -> strict_yaml.Document:
    try:
        document = strict_yaml.read(content, max_bytes=MAX_TEXT_BYTES, max_values=_MOST_VALUES)
    except strict_yaml.YamlError as e:
        raise Unusable([Finding(message=e.problem, line=e.line, key=e.key)]) from e
    if document.value is None:
        raise Unusable([Finding(message="the file is empty, or being written")])
    if not isinstance(document.value, dict):
        raise Unusable([Finding(message="must be a mapping of keys, like `count: 1`", line=1)])
    return document


def _draft(document: strict_yaml.Document, file: str, defaults: Defaults) -> Draft:
    keys = _keys(document)
    name = keys.name or _stem(file)
    spec = _spec(keys, defaults)
    found = [_finding(document, *fault) for fault in _faults(keys)]
    if name is None:
        no_name = "is required: the file's own name cannot be the preset's"
        found.append(_finding(document, ("name",), no_name))
    if keys.count is None and not keys.unmanaged:
        found.append(_finding(document, ("count",), "is required"))
    found += [_at_its_line(document, each) for each in contradictions.found_in(spec, keys.policy)]
    if name is None or any(each.severity is Severity.ERROR for each in found):
        raise Unusable(found)
    return Draft(
        file=file,
        name=name,
        name_line=document.line_of(("name",)),
        spec=spec,
        user_data=_user_data(keys, file),
        user_data_line=document.line_of(("userdata",)),
        warnings=_placed(found, file),
    )


def _keys(document: strict_yaml.Document) -> PresetKeys:
    try:
        return settings.parse(document.value, PresetKeys)
    except settings.Invalid as e:
        raise Unusable(
            [_finding(document, each.keys, each.message, each.nearest) for each in e.findings]
        ) from e


def _spec(keys: PresetKeys, defaults: Defaults) -> PresetSpec:
    provider, iaas_options = merging.provider(keys.iaas, defaults.iaas)
    flavor, fallback_flavors = merging.preferred(keys.flavor)
    image, fallback_images = merging.preferred(keys.image)
    return PresetSpec(
        count=keys.count or 0,
        provider=provider,
        flavor=flavor,
        image=image,
        network=merging.network(keys.network),
        meta_tags=keys.meta_tags,
        key_name=keys.key_name,
        unmanaged=keys.unmanaged,
        healthcheck=merging.health(keys.healthcheck, defaults.healthcheck),
        # VmShepherd 1.6 wrote 0 for "no interval of its own".
        manage_interval=keys.manage_interval or None,
        manage_expire=keys.manage_expire,
        policy=merging.policy(keys.policy, defaults.policy),
        panel_links=keys.panel_links,
        iaas_options=iaas_options,
        fallback_flavors=fallback_flavors,
        fallback_images=fallback_images,
    )


def _user_data(keys: PresetKeys, file: str) -> str | Reference:
    if not keys.userdata.startswith(_FILE_SCHEME):
        return keys.userdata
    path = keys.userdata.removeprefix(_FILE_SCHEME).strip()
    return Reference(file=file, root=keys.userdata_source_root, path=path)


def _faults(keys: Defaults) -> Iterator[tuple[Path, str, str | None]]:
    """Faults that the models cannot see: slips among a driver's options, and credentials."""
    mappings: dict[str, OpenKeys] = {"healthcheck": keys.healthcheck, "iaas": keys.iaas}
    for at, mapping in mappings.items():
        for slip, near in mapping.slips():
            yield (at, slip), "unknown key", near
    for options, inner in ((keys.iaas.model_extra or {}, ()), (keys.iaas.options, ("options",))):
        for path in credentials.found_in(options, ("iaas", *inner)):
            yield path, _NO_CREDENTIALS, None


_NO_CREDENTIALS: Final = (
    "credentials and endpoints do not belong into a preset: put it into the provider, "
    "beneath iaas.providers of the configuration"
)


def _finding(
    document: strict_yaml.Document, path: Path, message: str, near: str | None = None
) -> Finding:
    hint = f"; did you mean {near!r}?" if near else ""
    return Finding(
        message=message + hint,
        line=document.line_of(_written(document.value, path)),
        key=".".join(str(part) for part in path),
    )


def _at_its_line(document: strict_yaml.Document, finding: Finding) -> Finding:
    path = _written(document.value, tuple(finding.key.split(".")))
    return replace(finding, line=document.line_of(path))


def _written(value: Any, path: Path) -> Path:
    """As much of the path as stands in the text: former and new spellings share their parent."""
    for index, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return path[:index]
    return path


def _unread_name(content: bytes, file: str) -> str | None:
    if found := _NAME_LINE.search(content):
        name = found[1].decode()
        return name if NAME.fullmatch(name) else None
    return _stem(file)


def _seeming_name(value: dict[str, Any], file: str) -> str | None:
    name = value.get("name")
    if name is None:
        return _stem(file)
    return name if isinstance(name, str) and NAME.fullmatch(name) else None


def _stem(file: str) -> str | None:
    stem = PurePosixPath(file).stem
    return stem if NAME.fullmatch(stem) else None
