"""`python -m orchestrator -c FILE` runs this service as a process of its own."""

from vmshepherd_kit import entry

from .config import SECTION, Config
from .server import running

if __name__ == "__main__":
    entry.main(SECTION, Config, running)
