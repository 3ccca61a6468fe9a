"""The highest fencing token seen of each preset: whoever comes with an older one is refused.

Every call that carries a token raises the floor, reads included, so that once the new holder of a
lock has looked, nothing that the old one sent can land any more.  Floors only grow, and live as
long as the process; the tokens on the VMs' markers bring them back after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vmshepherd_kit.errors import BadRequest, StaleFencingToken, Violation

from .marker import HIGHEST_TOKEN

# Bytes of names and tokens that one error tells, and those of a token with the two commas.
_ROOM = 1500
_TOKEN_ROOM = 22


class TokenFloors:
    """Floors by preset."""

    def __init__(self) -> None:
        self._floors: dict[str, int] = {}

    def floor(self, preset: str) -> int:
        """The highest token seen, 0 for none."""
        return self._floors.get(preset, 0)

    def admit(self, preset: str, token: int) -> None:
        """Raise the floor by a caller's token.  BadRequest (there is none), StaleFencingToken."""
        if not 0 < token <= HIGHEST_TOKEN:
            sentence = f"must be the token of the preset's lock, 1 to {HIGHEST_TOKEN}"
            raise BadRequest(
                f"preset {preset!r}: the fencing token {sentence}",
                violations=[Violation("fencing_token", sentence)],
                preset=preset,
            )
        self.require(preset, token)
        self._floors[preset] = token

    def require(self, preset: str, token: int) -> None:
        """Look again, directly before acting: a newer token may have come while this one waited."""
        floor = self.floor(preset)
        if token < floor:
            raise StaleFencingToken(
                f"preset {preset!r} is held under the newer token {floor}",
                preset=preset,
                floor=str(floor),
            )

    def admit_all(self, held: Iterable[tuple[str, int]]) -> None:
        """Raise the floors of all presets of a reader; StaleFencingToken names stale ones.

        Its `presets` and `floors` are lists with commas, in the same order, as many as fit into an
        error: asked again without these, it names the next ones.
        """
        stale = []
        for preset, token in held:
            try:
                self.admit(preset, token)
            except StaleFencingToken:
                stale.append(preset)
        if stale:
            named = list(_fitting(stale))
            raise StaleFencingToken(
                f"{len(stale)} presets are held under newer tokens: {', '.join(named)}",
                presets=",".join(named),
                floors=",".join(str(self.floor(preset)) for preset in named),
            )

    def learn(self, floors: Mapping[str, int]) -> None:
        """Raise the floors by what VMs bear."""
        for preset, token in floors.items():
            self._floors[preset] = max(self.floor(preset), token)


def _fitting(presets: Iterable[str]) -> Iterator[str]:
    """The first one, and those after it for which an error has room."""
    room = _ROOM
    for place, preset in enumerate(presets):
        room -= len(preset.encode()) + _TOKEN_ROOM
        if place and room < 0:
            return
        yield preset
