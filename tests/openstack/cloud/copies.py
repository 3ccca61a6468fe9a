"""Copies of servers in Nova's database: a project of ten thousand servers, of which few were made.

Nova lists a copy as it lists any other server. No hypervisor has it, so nothing can be done to it:
`removed` takes all of them out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from .database import sql
from .place import Place

_CELLS: Final = ("cell1", "cell2")
_MARK: Final = "'a copy'"
# What a listing reads of a server, and each row's column for whose it is.
_BESIDE: Final = (
    "instance_extra",
    "instance_info_caches",
    "instance_metadata",
    "instance_system_metadata",
)


@contextmanager
def added(place: Place, project_id: str, times: int) -> Iterator[None]:
    """So many copies of each server of the project, within the block."""
    try:
        if times:
            for cell in _CELLS:
                sql(place, _adding(place, f"nova_{cell}", project_id, times))
        yield
    finally:
        for cell in _CELLS:
            sql(place, _removing(f"nova_{cell}", project_id))


def _adding(place: Place, database: str, project_id: str, times: int) -> str:
    pairs = (
        "CREATE TEMPORARY TABLE pairs (INDEX (old)) AS SELECT i.uuid AS old, UUID() AS new "
        f"FROM instances i JOIN seq_1_to_{times} "
        f"WHERE i.deleted = 0 AND i.project_id = '{project_id}'"
    )
    instances = _copying(
        place, database, "instances", {"uuid": "pairs.new", "display_description": _MARK}
    )
    beside = [_copying(place, database, table) for table in _BESIDE]
    mappings = _copying(place, "nova_api", "instance_mappings")
    return "; ".join([f"USE {database}", pairs, instances, *beside, mappings])


def _copying(
    place: Place,
    database: str,
    table: str,
    changed: Mapping[str, str] = {"instance_uuid": "pairs.new"},
) -> str:
    """Rows of a table anew, for the new server of each pair."""
    rows = sql(
        place,
        "SELECT column_name FROM information_schema.columns WHERE extra NOT LIKE '%auto_increment%'"
        f" AND table_schema = '{database}' AND table_name = '{table}'",
    )
    names = [name for [name] in rows]
    values = ", ".join(changed.get(name, f"t.`{name}`") for name in names)
    columns = ", ".join(f"`{name}`" for name in names)
    [whose] = changed.keys() - {"display_description"}
    return (
        f"INSERT INTO {database}.{table} ({columns}) SELECT {values} "
        f"FROM {database}.{table} t JOIN pairs ON pairs.old = t.{whose}"
    )


def _removing(database: str, project_id: str) -> str:
    ours = (
        "SELECT uuid FROM instances "
        f"WHERE project_id = '{project_id}' AND display_description = {_MARK}"
    )
    tables = (*_BESIDE, "nova_api.instance_mappings")
    return "; ".join(
        [
            f"USE {database}",
            f"CREATE TEMPORARY TABLE copies (INDEX (uuid)) AS {ours}",
            *(
                f"DELETE t FROM {table} t JOIN copies ON copies.uuid = t.instance_uuid"
                for table in tables
            ),
            "DELETE t FROM instances t JOIN copies ON copies.uuid = t.uuid",
        ]
    )
