"""`python -m health_service`: this service alone. The command runs the same."""

from health_service.config import SECTION, Config
from health_service.server import running
from vmshepherd_kit.entry import main

if __name__ == "__main__":
    main(SECTION, Config, running)
