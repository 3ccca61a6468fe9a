"""`python -m vmshepherd_kit.probe HOST:PORT`: exit code 0 when a server says SERVING, 1 when not.

For the health checks of containers, which run every few seconds for ever: it speaks just as much
HTTP/2 as grpc.health.v1 needs, with the standard library alone, in a quarter of the time and of
the memory that `import grpc` takes.  Plaintext only; never used to probe VMs.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Final

# RFC 9113: a connection begins with these words and a SETTINGS frame, here an empty one.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x7
_ACK: Final = 0x1
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_STREAM: Final = 1
_LONGEST: Final = 126

_PATH: Final = "/grpc.health.v1.Health/Check"
# HealthCheckResponse{status: SERVING}, as gRPC frames it: not compressed, two bytes.
_SERVING: Final = b"\0\0\0\0\2\x08\1"


class NotServing(Exception):
    """The server did not say SERVING; the message says what happened instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Ask one server; the exit code."""
    parser = argparse.ArgumentParser(description="Ask a gRPC server whether it serves.")
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--service", default="", help="One of its services; default: the server.")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS")
    arguments = parser.parse_args(argv)
    try:
        ask(arguments.address, service=arguments.service, timeout_seconds=arguments.timeout)
    except (NotServing, OSError, ValueError) as e:
        sys.stderr.write(f"{arguments.address}: {e}\n")
        return 1
    return 0


def ask(address: str, *, service: str = "", timeout_seconds: float = 2.0) -> None:
    """Return when the server says SERVING.  NotServing; OSError when it cannot be reached;
    ValueError when the address is none.

    The time is for each wait on the network, of which there are few.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout_seconds) as connection:
        connection.sendall(_request(address, service))
        if _answer(connection) != _SERVING:
            raise NotServing("it does not serve")


def _request(address: str, service: str) -> bytes:
    message = b"\x0a" + _counted(service) if service else b""
    headers = b"".join(
        _header(key, value)
        for key, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", _PATH),
            (":authority", address),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        )
    )
    return (
        _PREFACE
        + _frame(_SETTINGS)
        + _frame(_HEADERS, headers, flags=_END_HEADERS, stream=_STREAM)
        + _frame(
            _DATA,
            struct.pack(">BI", 0, len(message)) + message,
            flags=_END_STREAM,
            stream=_STREAM,
        )
    )


def _header(key: str, value: str) -> bytes:
    """A field as RFC 7541 (HPACK) writes one without compression: never indexed, plain text."""
    return b"\x10" + _counted(key) + _counted(value)


def _counted(text: str) -> bytes:
    """Length and text, where one byte of length is enough for protobuf and for HPACK alike."""
    if len(text.encode()) > _LONGEST:
        raise ValueError(f"{text[:20]!r}... is longer than {_LONGEST} bytes")
    return bytes([len(text.encode())]) + text.encode()


def _frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _answer(connection: socket.socket) -> bytes:
    """The bytes of the response's message; none when there is only an error."""
    answer = b""
    for kind, flags, payload in _frames(connection):
        if kind == _SETTINGS and not flags & _ACK:
            connection.sendall(_frame(_SETTINGS, flags=_ACK))
        elif kind == _DATA:
            answer += payload
        if kind in {_GOAWAY, _RST_STREAM}:
            raise NotServing("it refused the call")
        if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
            return answer
    return answer


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and payload of each frame, until the other side closes."""
    with connection.makefile("rb") as stream:
        while len(head := stream.read(9)) == 9:  # noqa: PLR2004  length 3, kind 1, flags 1, stream 4
            length = int.from_bytes(head[:3])
            yield head[3], head[4], stream.read(length)


if __name__ == "__main__":
    sys.exit(main())
