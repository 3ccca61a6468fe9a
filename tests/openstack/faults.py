"""What the proxy can be told to do with a request; pure but for the waiting.

Each fault is a value: the proxy asks `before` whether it shall answer without the cloud, and hands
the cloud's answer to `after`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent to the client; of its body only the first bytes when it is cut."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    cut_after: int | None = None


class Hangup(Exception):
    """The connection is closed without an answer."""


class Silence(Exception):
    """The connection stays open, and no answer ever comes."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Lets everything pass, some time later; the ground of all others."""

    seconds: float = 0.0
    # Whether the cloud sees the request, and does as it says.
    forwarded: bool = True

    def instead(self) -> Answer:
        """The answer to a request that is not forwarded."""
        raise NotImplementedError

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        """What becomes of the cloud's answer."""
        return answer


@dataclass(frozen=True, kw_only=True)
class Refusal(Fault):
    """An error in place of what the cloud says: 503, 500, 409, 429, 413, 401, ..."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "the proxy was told so"

    def instead(self) -> Answer:
        name = "overLimit" if self.status in {413, 429} else "fault"
        body = json.dumps({name: {"code": self.status, "message": self.message}}).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        return Answer(status=self.status, headers=list(headers.items()), body=body)

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        return self.instead()


@dataclass(frozen=True, kw_only=True)
class Page(Fault):
    """A page for people, as load balancers send: no JSON, whatever the status."""

    status: int = 200

    def instead(self) -> Answer:
        headers = [("Content-Type", "text/html")]
        return Answer(status=self.status, headers=headers, body=b"<html>Please wait</html>")

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        return self.instead()


@dataclass(frozen=True, kw_only=True)
class Closed(Fault):
    """The connection ends without an answer, before or after the cloud did it."""

    def instead(self) -> Answer:
        raise Hangup

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        raise Hangup


@dataclass(frozen=True, kw_only=True)
class Unanswered(Fault):
    """No answer ever comes, whether the cloud did it or not."""

    def instead(self) -> Answer:
        raise Silence

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        raise Silence


@dataclass(frozen=True, kw_only=True)
class Truncated(Fault):
    """Half of the body: the connection breaks in its midst, or it claims to be whole."""

    claims_whole: bool = False

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        half = len(answer.body) // 2
        if self.claims_whole:
            return Answer(status=answer.status, headers=answer.headers, body=answer.body[:half])
        return Answer(
            status=answer.status, headers=answer.headers, body=answer.body, cut_after=half
        )


@dataclass(frozen=True, kw_only=True)
class Forgetful(Fault):
    """Lists of servers lack the newest ones, of those that were made through the proxy."""

    servers: int = 1

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        forgotten = set(newest[-self.servers :])
        said: Any = json.loads(answer.body)
        said["servers"] = [each for each in said["servers"] if each["id"] not in forgotten]
        return _saying(answer, said)


@dataclass(frozen=True, kw_only=True)
class Endless(Fault):
    """Each page of a collection says that there is one more, the same one."""

    key: str

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        said: Any = json.loads(answer.body)
        said[f"{self.key}_links"] = [{"rel": "next", "href": "http://elsewhere/?limit=1000"}]
        return _saying(answer, said)


@dataclass(frozen=True, kw_only=True)
class Older(Fault):
    """Says that Nova is of an older release; to requests of its time it answers as that one did."""

    microversion: str

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        said: Any = json.loads(answer.body)
        said["version"]["version"] = self.microversion
        return _saying(answer, said)


@dataclass(frozen=True, kw_only=True)
class Changed(Fault):
    """What the cloud says, changed in place before the client hears it."""

    change: Callable[[Any], None]

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        said: Any = json.loads(answer.body)
        self.change(said)
        return _saying(answer, said)


@dataclass(frozen=True, kw_only=True)
class Empty(Fault):
    """A collection in which there is nothing, whatever the cloud has."""

    key: str

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        return _saying(answer, {self.key: []})


@dataclass(frozen=True, kw_only=True)
class Unlisted(Fault):
    """A login whose catalogue lacks a service, by the beginning of its type."""

    service: str

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        said: Any = json.loads(answer.body)
        entries = said["token"]["catalog"]
        said["token"]["catalog"] = [e for e in entries if not e["type"].startswith(self.service)]
        return _saying(answer, said)


def _saying(answer: Answer, said: Any) -> Answer:
    """The answer with another body."""
    body = json.dumps(said).encode()
    return Answer(status=answer.status, headers=answer.headers, body=body)
