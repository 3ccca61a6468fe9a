"""`python -m tests.linearizability`."""

from __future__ import annotations

import sys

from tests.linearizability.run import main

if __name__ == "__main__":
    sys.exit(main())
