"""Places: the projects and regions that a provider is allowed to use.

Pure.  A preset chooses among those that the provider's configuration lists, never an endpoint, and
never a place that is not listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vmshepherd_kit.errors import BadRequest, Violation

KEYS: Final = ("project", "project_name", "project_domain_name", "region")
"""Options of a preset that choose a place; the second and third are those of VmShepherd 1.6."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One project in one region; "" is what the credentials themselves say."""

    project: str = ""
    project_domain: str = ""
    region: str = ""

    def __str__(self) -> str:
        """For people."""
        named = (("project", self.project), ("region", self.region))
        return " in ".join(f"{kind} {name}" for kind, name in named if name) or "its project"


def chosen(places: Sequence[Place], options: Mapping[str, Any]) -> Place:
    """The place that a preset's options choose; the first one that they leave open.

    BadRequest names the option that no place fits, and what there is.
    """
    fitting = list(places)
    for key, field in _CHOICES:
        wanted = options.get(key)
        if wanted in {None, ""}:
            continue
        left = [place for place in fitting if getattr(place, field) == wanted]
        if not left:
            raise _unlisted(key, field, fitting)
        fitting = left
    return fitting[0]


_CHOICES: Final = (
    ("project", "project"),
    ("project_name", "project"),
    ("project_domain_name", "project_domain"),
    ("region", "region"),
)


def _unlisted(key: str, field: str, places: Sequence[Place]) -> BadRequest:
    known = sorted({getattr(place, field) for place in places} - {""})
    option = "project_domain_name" if field == "project_domain" else f"{field}s"
    lists_none = f"this provider lists none in its option {option}"
    offered = f"this provider offers {', '.join(known)}" if known else lists_none
    sentence = f"is not one of this provider's: {offered}"
    return BadRequest(
        f"{key} {sentence}",
        reason="UNKNOWN_PLACE",
        violations=[Violation(f"spec.options.{key}", sentence)],
    )
