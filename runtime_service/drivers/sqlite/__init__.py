"""A store in one SQLite file: what a single machine needs, durable and exclusive.

`store` fulfils the port, `tables` has the SQL, `writer` the one thread and its transactions,
`file` opens and guards the file, `failures` says what SQLite's errors mean to an operator.
"""

from .store import SqliteOptions, SqliteRuntime

__all__ = ["SqliteOptions", "SqliteRuntime"]
