"""What a preset may say of its place in a cloud, for drivers whose machines have none.

`project_name` and its kin mean something to OpenStack; a preset that bears them also runs on the
drivers that need no cloud, where they are without effect.  Any other option is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vmshepherd_kit.errors import BadRequest, Violation

KEYS: Final = ("project_name", "project_domain_name", "region")


def refuse_other_options(options: Mapping[str, Any]) -> None:
    """BadRequest for options that mean nothing here, each named."""
    unknown = sorted(options.keys() - set(KEYS))
    if unknown:
        sentence = f"is unknown to this driver; known: {', '.join(KEYS)}"
        raise BadRequest(
            f"unknown options: {', '.join(unknown)}",
            reason="UNKNOWN_OPTION",
            violations=[Violation(f"spec.options.{key}", sentence) for key in unknown],
        )
