"""Where things are stored: everything beneath one node of the working path.

Names of people are quoted, since ZooKeeper takes neither a slash nor `.` nor control characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, unquote

from runtime_service.domain import SessionId


class Paths:
    """The layout beneath a working path; `store` beneath it keeps our names apart from others'."""

    def __init__(self, working_path: str) -> None:
        self.working = working_path.rstrip("/")
        self.store = f"{self.working}/store"
        self.sessions = f"{self.store}/sessions"
        self.locks = f"{self.store}/locks"
        self.states = f"{self.store}/states"
        self.journal = f"{self.store}/journal"
        self.parts = f"{self.store}/parts"

    def folders(self) -> Iterator[str]:
        """What must be there before anything can be stored, parents first."""
        names = self.store.split("/")
        yield from ("/".join(names[:length]) for length in range(2, len(names) + 1))
        yield from (self.sessions, self.locks, self.states, self.journal, self.parts)

    def session(self, session_id: SessionId) -> str:
        """What is known of a session, as long as it keeps its locks."""
        return f"{self.sessions}/{quoted(session_id)}"

    def life(self, session_id: SessionId) -> str:
        """There as long as the session may act; each refresh makes its version grow."""
        return f"{self.session(session_id)}/life"

    def lock(self, name: str) -> str:
        """A lock, from its first grant on for ever."""
        return f"{self.locks}/{quoted(name)}"

    def state(self, name: str) -> str:
        """A state; the parts of a large one are its children."""
        return f"{self.states}/{quoted(name)}"

    def chunk(self, first: int) -> str:
        """Events of the journal, from that sequence on."""
        return f"{self.journal}/{first:019}"

    def part(self, name: str) -> str:
        """Events of a chunk that is too large for one packet with others."""
        return f"{self.parts}/{name}"


def quoted(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="").replace(".", "%2E")


def unquoted(part: str) -> str:
    """The name that was quoted."""
    return unquote(part)
