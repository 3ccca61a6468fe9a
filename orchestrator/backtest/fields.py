"""The fields of one JSON object, each read strictly and once.

What is missing, of the wrong kind, out of range or not known is refused by its name, with what
would be right. `reading` takes records through it; it knows nothing of what they mean.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Final, TypeVar

# A quarter of a year: longer is a slip, and would be replayed for hours.
LONGEST_SECONDS: Final = 90 * 86400
# VMs may be older than any timeline.
_OLDEST_SECONDS: Final = 50 * 365 * 86400
_MOST: Final = 100_000
_LONGEST_TEXT: Final = 1024

E = TypeVar("E", bound=Enum)


class Faulty(Exception):
    """A field that is not as it must be: which, and what to write instead."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)


class Fields:
    """An object's fields; a reader takes what it knows, then asks that nothing is `left`."""

    def __init__(self, raw: Mapping[str, object]) -> None:
        self._raw = dict(raw)
        self._known: list[str] = []

    def has(self, name: str) -> bool:
        """Whether it is written at all."""
        self._known.append(name)
        return name in self._raw

    def nothing_left(self) -> None:
        """Refuse what nobody has asked for."""
        for name in self._raw:
            if name not in self._known:
                raise Faulty(name, f"unknown field{near(name, self._known)}")

    def text(self, name: str, default: str | None = None) -> str:
        """A text; required where there is no default."""
        value = self._take(name, default)
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            raise Faulty(name, f"must be a text of at most {_LONGEST_TEXT} characters")
        return value

    def word(self, name: str) -> str:
        """A text that is not empty."""
        value = self.text(name)
        if not value.strip():
            raise Faulty(name, "must not be empty")
        return value

    def flag(self, name: str, *, default: bool | None = None) -> bool:
        """A yes or a no."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise Faulty(name, "must be true or false")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number from 0."""
        value = self._take(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
            return value
        raise Faulty(name, f"must be a whole number from 0 to {_MOST}, without quotes")

    def seconds(self, name: str, default: float | None = None) -> float:
        """A length of time or a moment after the start."""
        return self._number(name, default, lowest=0, highest=LONGEST_SECONDS)

    def moment(self, name: str, default: float | None = None) -> float:
        """A moment that may lie before the start."""
        return self._number(name, default, lowest=-_OLDEST_SECONDS, highest=_OLDEST_SECONDS)

    def time(self, name: str) -> datetime:
        """A moment of the calendar, with its offset from UTC."""
        try:
            value = datetime.fromisoformat(self.text(name))
        except ValueError:
            value = datetime.min  # noqa: DTZ901  refused below: it has no time zone
        if value.tzinfo is None:
            raise Faulty(name, 'must be a time with its zone, like "2030-01-31T12:00:00Z"')
        return value

    def choice(self, name: str, kind: type[E], default: E | None = None) -> E:
        """One word of those that `kind` has."""
        return _member(name, self._take(name, None if default is None else default.name), kind)

    def choices(self, name: str, kind: type[E]) -> frozenset[E]:
        """A list of such words; none when it is not written."""
        value = self._take(name, [])
        if not isinstance(value, list):
            raise Faulty(name, "must be a list of words")
        return frozenset(_member(name, each, kind) for each in value)

    def _number(self, name: str, default: float | None, *, lowest: float, highest: float) -> float:
        value = self._take(name, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value) if abs(value) <= highest else math.inf
            if lowest <= number <= highest:
                return number
        raise Faulty(name, f"must be a number of seconds from {lowest:.0f} to {highest:.0f}")

    def _take(self, name: str, default: object) -> object:
        self._known.append(name)
        value = self._raw.get(name, default)
        if name not in self._raw and default is None:
            raise Faulty(name, "is required")
        return value


def near(word: str, known: Iterable[str]) -> str:
    """A hint at what was meant, or at what there is."""
    words = sorted(set(known))
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f": there are {', '.join(words)}" if words else ""


def _member(name: str, value: object, kind: type[E]) -> E:
    if isinstance(value, str) and value in kind.__members__:
        return kind[value]
    words = ", ".join(kind.__members__)
    hint = near(value.upper(), kind.__members__) if isinstance(value, str) else ""
    hint = hint if "did you mean" in hint else ""
    raise Faulty(name, f"must be one of {words}{hint}")
