"""What one cycle of one preset goes by: its declaration, else the last will that it left.

Called by the cycle; it asks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd.preset.v1 import preset_pb2

from . import records
from .archive import Legacy
from .clients.presets import Declared
from .model import PresetName, Spec, Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One preset in one cycle."""

    name: PresetName
    declared: Declared
    spec: Spec
    fencing_token: int
    legacy: Legacy
    is_removed: bool = False
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def is_news(self) -> bool:
        """Whether it was removed, or came back, since its last cycle."""
        return self.is_removed is (self.legacy.removed is None)

    @property
    def former_provider(self) -> str:
        """Provider that the last cycle went by; "" when that is not known."""
        return self.legacy.will.provider if self.legacy.will is not None else ""

    @property
    def former_hash(self) -> str:
        """Hash of the spec that the last cycle went by; "" when that is not known."""
        return self.legacy.will.spec_hash if self.legacy.will is not None else ""


def turn_of(
    name: PresetName,
    declared: Declared | None,
    legacy: Legacy,
    *,
    fencing_token: int,
    last: Declared | None = None,
) -> Turn | None:
    """The turn of a preset; None of a removed one that left no will: nobody knows its provider.

    `last` is how a removed one was declared last, where that was seen.
    """
    if declared is not None and declared.spec is not None:
        return Turn(
            name=name,
            declared=declared,
            spec=declared.spec,
            fencing_token=fencing_token,
            legacy=legacy,
        )
    if legacy.will is not None and legacy.removed is None and last is not None and last.spec:
        legacy = replace(legacy, will=records.relented(legacy.will, records.will(last)))
    left = records.will_of(record_pb2.PresetRecord(will=legacy.will), name)
    if left is None:
        return None
    provider, spec = left
    message = preset_pb2.Preset(name=name, spec_hash=spec.spec_hash)
    return Turn(
        name=name,
        declared=Declared(message=message, spec=spec, provider=provider),
        spec=spec,
        fencing_token=fencing_token,
        legacy=legacy,
        is_removed=True,
    )
