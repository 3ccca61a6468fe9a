"""YAML without surprises: what is read is what was written, or it is refused with its line.

Configurations and presets are read here.  Scalars resolve by YAML 1.2 (`no`, `on` and `12:30:45`
are texts); whatever two readers could understand in two ways is refused: duplicate keys, aliases,
tags, merge keys, octal-looking numbers, several documents.  Size and depth are bounded before they
cost anything.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml
from yaml import events

from vmshepherd_kit.errors import BadRequest, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]
Value = Any

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BASED_INT: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_NUMBER: Final = 100

# libyaml's scanner where it is built in: ten times as fast, and bounded in the same way.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(BadRequest):
    """A text that is not acceptable YAML: why, the line (from 1) and the dotted key where known."""

    reason = "BAD_YAML"

    def __init__(self, message: str, line: int, key: str = "") -> None:
        where = f"line {line}" + (f", {key}" if key else "")
        super().__init__(
            f"{where}: {message}", violations=[Violation(key or f"line {line}", message)]
        )
        self.problem = message
        self.line = line
        self.key = key


@dataclass(frozen=True)
class Document:
    """One document: plain values, and the line on which each of them was written."""

    value: Value
    lines: dict[Path, int]

    def line_of(self, path: Path) -> int:
        """The line (from 1) of what stands at that path, or of the nearest thing above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(
    text: str | bytes,
    *,
    max_bytes: int = 262_144,
    max_depth: int = 20,
    max_values: int = 10_000,
) -> Document:
    """Read the only document of a text, None of an empty one; YamlError when it is not strict."""
    parsed = _events(_checked(text, max_bytes))
    return _Reader(parsed, max_depth, max_values).document()


def _checked(text: str | bytes, max_bytes: int) -> str:
    try:
        raw = text.encode() if isinstance(text, str) else text
        decoded = raw.decode()
    except UnicodeError as e:
        raise YamlError("not a text in UTF-8", 1) from e
    if len(raw) > max_bytes:
        raise YamlError(f"longer than {max_bytes} bytes", 1)
    if "\0" in decoded:
        before, _, _ = decoded.partition("\0")
        raise YamlError("contains a NUL character", before.count("\n") + 1)
    return decoded.removeprefix("\ufeff")


def _events(text: str) -> Iterator[events.Event]:
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        problem = e.problem or e.context or "not well-formed"
        raise YamlError(problem, mark.line + 1 if mark else 1) from None
    except yaml.reader.ReaderError as e:
        line = text[: e.position].count("\n") + 1
        raise YamlError("contains a character that may not stand in YAML", line) from None


class _Reader:
    """Builds one document of its events, remembering where it is."""

    def __init__(self, parsed: Iterator[events.Event], max_depth: int, max_values: int) -> None:
        self._events = parsed
        self._max_depth = max_depth
        self._max_values = max_values
        self._lines: dict[Path, int] = {}

    def document(self) -> Document:
        value = None
        documents = 0
        for event in self._events:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise YamlError("more than one document in a file", _line(event))
                value = self._node(next(self._events), ())
        return Document(value, self._lines)

    def _node(self, event: events.Event, path: Path) -> Value:
        self._lines.setdefault(path, _line(event))
        self._refuse_extras(event, path)
        if len(self._lines) > self._max_values:
            raise YamlError(f"holds more than {self._max_values} values", _line(event))
        if isinstance(event, events.ScalarEvent):
            return self._scalar(event, path)
        if len(path) >= self._max_depth:
            raise YamlError(f"nested deeper than {self._max_depth} levels", _line(event))
        if isinstance(event, events.MappingStartEvent):
            return dict(self._pairs(path))
        return list(self._items(path))

    def _items(self, path: Path) -> Iterator[Value]:
        index = 0
        while not isinstance(event := next(self._events), events.SequenceEndEvent):
            yield self._node(event, (*path, index))
            index += 1

    def _pairs(self, path: Path) -> Iterator[tuple[str, Value]]:
        seen: dict[str, int] = {}
        while not isinstance(event := next(self._events), events.MappingEndEvent):
            key = self._key(event, path)
            if key in seen:
                raise YamlError(
                    f"the key {key!r} stands here a second time, first on line {seen[key]}",
                    _line(event),
                    _dotted((*path, key)),
                )
            seen[key] = self._lines[(*path, key)] = _line(event)
            yield key, self._node(next(self._events), (*path, key))

    def _key(self, event: events.Event, path: Path) -> str:
        self._refuse_extras(event, path)
        if not isinstance(event, events.ScalarEvent):
            raise YamlError("a key must be a plain text", _line(event), _dotted(path))
        plain = not event.style
        if plain and event.value == "<<":
            raise YamlError("merge keys (<<) are not supported", _line(event), _dotted(path))
        if plain and not event.value:
            raise YamlError("a key is missing before the colon", _line(event), _dotted(path))
        # Always the text as written: `80:` and `on:` are keys like any other.
        return str(event.value)

    def _scalar(self, event: events.ScalarEvent, path: Path) -> Value:
        if event.style:
            return event.value
        try:
            return _resolved(event.value)
        except ValueError as e:
            raise YamlError(str(e), _line(event), _dotted(path)) from None

    def _refuse_extras(self, event: events.Event, path: Path) -> None:
        if isinstance(event, events.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors (&) and aliases (*) are not supported; quote a text that begins so"
            raise YamlError(problem, _line(event), _dotted(path))
        if getattr(event, "tag", None):
            problem = "tags (!) are not supported; quote a text that begins so"
            raise YamlError(problem, _line(event), _dotted(path))


def _resolved(text: str) -> Value:
    """The value of a plain scalar by the core schema of YAML 1.2, but nothing ambiguous."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(
            f"{text} may mean a decimal or an octal number: quote it if it is a text, "
            "write 0o… if it is octal"
        )
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a number that can be used here")
    return _number(text)


def _number(text: str) -> Value:
    is_int, is_float = _INT.fullmatch(text), _FLOAT.fullmatch(text)
    is_based = _BASED_INT.fullmatch(text)
    if not (is_int or is_float or is_based):
        return text
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(
            f"a number of more than {_LONGEST_NUMBER} digits: quote it if it is a text"
        )
    if is_int:
        return int(text)
    if is_based:
        return int(text, 0)
    if math.isinf(value := float(text)):
        raise ValueError(f"{text} is too large for a number: quote it if it is a text")
    return value


def _line(event: events.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)
