"""What runs in a VM that was told nothing else: a web server that answers `/` with the VM's name.

Run as a script, never imported: `python -I -S guest.py NAME ADDRESS PORT`.  It starts in some 20 ms
because it imports nothing but sockets; a client that says nothing holds up nobody.
"""

import _thread
import sys
from socket import SO_REUSEADDR, SOL_SOCKET, socket

_PATIENCE_SECONDS = 5
_LONGEST_HEAD = 8192


def serve(name: str, address: str, port: int) -> None:
    """Answer for ever."""
    listener = socket()
    listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(128)
    print(f"{name} listens on http://{address}:{port}/", flush=True)  # noqa: T201  its own log
    while True:
        connection, _ = listener.accept()
        _thread.start_new_thread(answer, (connection, name))


def answer(connection: socket, name: str) -> None:
    """One request, one response."""
    try:
        connection.settimeout(_PATIENCE_SECONDS)
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _LONGEST_HEAD:
            part = connection.recv(4096)
            if not part:
                return
            head += part
        connection.sendall(response(head, name))
    except OSError:
        pass  # whoever asked is gone, or never asked
    finally:
        connection.close()


def response(head: bytes, name: str) -> bytes:
    """`/` is answered with the name, everything else with 404."""
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    found = path == b"/" and method in {b"GET", b"HEAD"}
    body = f"{name}\n".encode() if found else b"not found\n"
    start = b"HTTP/1.1 200 OK" if found else b"HTTP/1.1 404 Not Found"
    lines = [
        start,
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        b"",
        b"" if method == b"HEAD" else body,
    ]
    return b"\r\n".join(lines)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
