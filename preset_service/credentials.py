"""Which options of a preset are refused because they belong to the provider.

A preset's author may choose a project and a region.  Who may choose an endpoint could have the
provider's credentials sent there, so endpoints and credentials stand in iaas_service alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Path = tuple[str | int, ...]

_FORBIDDEN: Final = re.compile(
    r"passw|secret|token|credential|api_?key|access_?key|private_?key|auth|endpoint|clouds?_?yaml"
    r"|^(user|username|user_id|user_name|user_domain.*|login|cloud|insecure|verify|cacert|cert|key"
    r"|url|.*_url|host|.*_file)$"
)


def found_in(options: Mapping[str, Any], at: Path) -> Iterator[Path]:
    """The paths of all keys that are, or hold, an endpoint or a credential."""
    for key, value in options.items():
        here = (*at, key)
        if _FORBIDDEN.search(key.lower().replace("-", "_")):
            yield here
        else:
            yield from _within(value, here)


def _within(value: object, at: Path) -> Iterator[Path]:
    if isinstance(value, Mapping):
        yield from found_in(value, at)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _within(inner, (*at, index))
