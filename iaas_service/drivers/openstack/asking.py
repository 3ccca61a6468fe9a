"""What is asked of a service, and where a page says that the next one is: pure.

`api` asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

Json = Any
Params = Mapping[str, str | int]

_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request, relative to the endpoint of a service."""

    method: str
    service: str
    path: str
    params: Params | None
    body: Json = None
    microversion: str | None = None
    changes: bool = False


def headers(token: str, request: Request) -> dict[str, str]:
    """The token, and the microversion where one is asked for."""
    told = {"X-Auth-Token": token}
    if request.microversion:
        told["OpenStack-API-Version"] = f"{request.service} {request.microversion}"
        if request.service == "compute":
            # All that Nova understood before 2.27.
            told["X-OpenStack-Nova-API-Version"] = request.microversion
    return told


def following(page: Mapping[str, Any], key: str) -> dict[str, str]:
    """What the link to the next page asks for: Nova's and Neutron's, or Glance's.

    Its host and path are left out: behind a proxy they are often wrong.
    """
    links = page.get(f"{key}_links") or []
    hrefs = [link["href"] for link in links if link.get("rel") == "next"]
    href = hrefs[0] if hrefs else page.get("next") or ""
    return dict(parse_qsl(urlsplit(href).query))


def numbers(version: str) -> tuple[int, int]:
    """A microversion as numbers; what is none is the oldest."""
    found = _VERSION.fullmatch(version)
    return (int(found[1]), int(found[2])) if found else (2, 1)
