"""`python -m preset_service`: this service alone. The command runs the same."""

from preset_service.config import SECTION, Config
from preset_service.server import running
from vmshepherd_kit.entry import main

if __name__ == "__main__":
    main(SECTION, Config, running)
