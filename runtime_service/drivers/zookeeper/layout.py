"""Making the folders of the store, once they are missing; refuses those of a newer version."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Final

from vmshepherd_kit.errors import Refused

from .connection import Connection
from .failures import Conflict
from .operations import Create, Node
from .paths import Paths

_FORMAT: Final = 1


class Layout:
    """The folders, and the version of what is in them."""

    def __init__(self, connection: Connection, paths: Paths) -> None:
        self._connection = connection
        self._paths = paths
        self._is_made = False

    async def ensure(self) -> None:
        """A step: see to it that all folders are there.  Refused / STORE_TOO_NEW."""
        if self._is_made:
            return
        for path in self._paths.folders():
            if await self._connection.read_bare(path) is None:
                with suppress(Conflict):
                    await self._connection.commit(Create(path, self._content(path)))
        self._refuse_newer(await self._connection.read_bare(self._paths.store))
        self._is_made = True

    def doubt(self) -> None:
        """Somebody may have deleted them: look again."""
        self._is_made = False

    def _content(self, path: str) -> bytes:
        return json.dumps({"format": _FORMAT}).encode() if path == self._paths.store else b""

    def _refuse_newer(self, store: Node | None) -> None:
        if store and store.data and json.loads(store.data)["format"] > _FORMAT:
            raise Refused(
                f"{self._paths.store} in ZooKeeper was made by a newer VmShepherd: run that one, "
                "or set runtime.options.working_path to another path",
                reason="STORE_TOO_NEW",
            )
