"""A store in a PostgreSQL database: durable, and shared by any number of runtime_services.

`store` fulfils the port, `migrations` holds the SQL that decides (each operation is one statement,
judged by the database's clock), `queries` asks and converts, `database` keeps connections and
their limits, `schema` makes and checks what must be there, `listener` hears of events, `failures`
says what errors mean to an operator.
"""

from .options import PostgresOptions
from .store import PostgresRuntime

__all__ = ["PostgresOptions", "PostgresRuntime"]
