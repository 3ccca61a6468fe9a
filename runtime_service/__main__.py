"""`python -m runtime_service -c FILE`: this service as a process of its own."""

from __future__ import annotations

from vmshepherd_kit import entry

from .config import SECTION, Config
from .server import running

if __name__ == "__main__":
    entry.main(SECTION, Config, running)
