"""What a transaction is made of; `client` puts them into kazoo's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

ANY_VERSION: Final = -1

PACKET_BYTES: Final = 400_000
"""A transaction is no larger, about: ZooKeeper drops connections at 1 MiB."""

_MOST: Final = 400
_FRAME_BYTES: Final = 64
"""What ZooKeeper adds to path and data of one operation, at most."""


class Operation(Protocol):
    """One part of a transaction, which happens as a whole or not at all."""

    @property
    def path(self) -> str:
        """The node that it is about."""
        ...

    def put_into(self, transaction: Any) -> None:
        """Add it to a transaction of kazoo."""
        ...


@dataclass(frozen=True, slots=True)
class Create:
    """A node that must not be there yet."""

    path: str
    data: bytes = b""

    def put_into(self, transaction: Any) -> None:
        """See `Operation`."""
        transaction.create(self.path, self.data)


@dataclass(frozen=True, slots=True)
class Set:
    """New data for a node of that version."""

    path: str
    data: bytes
    version: int

    def put_into(self, transaction: Any) -> None:
        """See `Operation`."""
        transaction.set_data(self.path, self.data, self.version)


@dataclass(frozen=True, slots=True)
class Delete:
    """A node of that version, which must have no children, is gone."""

    path: str
    version: int = ANY_VERSION

    def put_into(self, transaction: Any) -> None:
        """See `Operation`."""
        transaction.delete(self.path, self.version)


@dataclass(frozen=True, slots=True)
class Check:
    """A node is there, and of that version."""

    path: str
    version: int = ANY_VERSION

    def put_into(self, transaction: Any) -> None:
        """See `Operation`."""
        transaction.check(self.path, self.version)


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it was read."""

    data: bytes
    version: int
    created: int
    """The transaction that made it: greater than those of all nodes made before."""


def packets(
    items: Iterable[T], size_of: Callable[[T], int], *, most: int = _MOST
) -> Iterator[list[T]]:
    """The items in groups that fit one packet each, in order."""
    packet: list[T] = []
    size = 0
    for item in items:
        grown = size + _FRAME_BYTES + size_of(item)
        if packet and (len(packet) == most or grown > PACKET_BYTES):
            yield packet
            packet, grown = [], _FRAME_BYTES + size_of(item)
        packet.append(item)
        size = grown
    if packet:
        yield packet
