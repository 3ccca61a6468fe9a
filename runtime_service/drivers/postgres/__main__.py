"""Prints the SQL that a database's owner runs where the suite's own user may not create tables.

python -m runtime_service.drivers.postgres [--schema NAME] [--user NAME] | psql DATABASE
"""

from __future__ import annotations

import argparse
import sys

from .options import PostgresOptions
from .schema import whole_script


def main() -> None:
    """Print it."""
    defaults = PostgresOptions()
    parser = argparse.ArgumentParser(prog="python -m runtime_service.drivers.postgres")
    parser.add_argument("--schema", default=defaults.db_schema)
    parser.add_argument("--user", default=defaults.user)
    given = parser.parse_args()
    options = PostgresOptions.model_validate({"schema": given.schema, "user": given.user})
    sys.stdout.write(whole_script(options.db_schema, options.user))


if __name__ == "__main__":
    main()
