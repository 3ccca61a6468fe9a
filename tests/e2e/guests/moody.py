"""A VM's web server that accepts and never answers once a file `hang` lies in its folder.

Run as a script by a flavor: what it needs to know stands in its environment.
"""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Moody(BaseHTTPRequestHandler):
    """Answers, or lets people wait for ever."""

    def do_GET(self) -> None:
        """Answer `/`."""
        if Path("hang").exists():
            threading.Event().wait()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"well\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Looks up no names."""

    daemon_threads = True


if __name__ == "__main__":
    Server((os.environ["VM_ADDRESS"], int(os.environ["VM_PORT"])), Moody).serve_forever()
