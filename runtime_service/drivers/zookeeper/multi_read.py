"""One request that reads many nodes, which kazoo does not have (ZooKeeper has it since 3.6).

Ten thousand nodes are read in a tenth of a second by it, and in five by single requests.  The
format is that of kazoo's `Transaction`: a header an item, then the item, then a last header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from kazoo.exceptions import EXCEPTIONS
from kazoo.protocol.serialization import (
    GetData,
    MultiHeader,
    int_struct,
    multiheader_struct,
    read_buffer,
    stat_struct,
)
from kazoo.protocol.states import ZnodeStat

_ERROR: Final = -1


@dataclass(frozen=True, slots=True)
class MultiRead:
    """A request as kazoo's connection sends them."""

    paths: Sequence[str]
    type: ClassVar[int] = 22

    def serialize(self) -> bytes:
        """The request's bytes."""
        header = MultiHeader(GetData.type, False, _ERROR).serialize()
        items = (header + GetData(path, None).serialize() for path in self.paths)
        return b"".join(items) + bytes(multiheader_struct.pack(_ERROR, True, _ERROR))

    @staticmethod
    def deserialize(data: bytes, offset: int) -> list[Any]:
        """Data and stat of each node in order, or the error in their place."""
        answers: list[Any] = []
        header, offset = MultiHeader.deserialize(data, offset)
        while not header.done:
            answer, offset = (_error if header.type == _ERROR else _node)(data, offset)
            answers.append(answer)
            header, offset = MultiHeader.deserialize(data, offset)
        return answers


def _error(data: bytes, offset: int) -> tuple[Exception, int]:
    (code,) = int_struct.unpack_from(data, offset)
    return EXCEPTIONS[code](), offset + int_struct.size


def _node(data: bytes, offset: int) -> tuple[tuple[bytes, ZnodeStat], int]:
    content, offset = read_buffer(data, offset)
    stat = ZnodeStat._make(stat_struct.unpack_from(data, offset))
    return (content or b"", stat), offset + stat_struct.size
