"""The database's side: schemas of all services, and Nova's cells.

Asks by the database's own client, as its superuser.
"""

from __future__ import annotations

import base64
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from .daemons import NotReady
from .place import PASSWORD, Place
from .services import HOSTS, PYTHON, config_options

_CELLS: Final = ("cell1", "cell2")
_ALL: Final = (
    "keystone", "glance", "placement", "neutron", "cinder",
    "nova_api", "nova_cell0", *(f"nova_{cell}" for cell in _CELLS),
)  # fmt: skip
_CELL0: Final = "00000000-0000-0000-0000-000000000000"


def sql(place: Place, statement: str) -> list[list[str]]:
    """The rows that a statement of the superuser answers."""
    done = subprocess.run(
        ["mariadb", "--no-defaults", "-uroot", "-S", place.database_socket, "-NB"],
        input=statement,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotReady(f"the database refuses: {done.stderr}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def answers(place: Place) -> bool:
    """Whether the database takes statements."""
    try:
        return bool(sql(place, "SELECT 1"))
    except NotReady:
        return False


def initialise(place: Place) -> None:
    """Make an empty folder of data."""
    command = ["mariadb-install-db", "--no-defaults", f"--datadir={place.folder / 'mariadb'}",
               "--skip-test-db", "--auth-root-authentication-method=normal"]  # fmt: skip
    who = ["--user=root"] if os.geteuid() == 0 else []
    _run(place, "mariadb-install", [*command, *who])


def create(place: Place) -> None:
    """Databases, and the one user."""
    user = "openstack@'127.0.0.1'"
    made = (f"CREATE DATABASE {name}; GRANT ALL ON {name}.* TO {user};" for name in _ALL)
    sql(place, "".join([f"CREATE USER {user} IDENTIFIED BY 'openstack';", *made]))


def fill(place: Place) -> None:
    """The schemas of all services, side by side."""
    jobs = (_keystone, _glance, _placement, _neutron, _nova, _cinder)
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(job, place) for job in jobs]:
            done.result()


def _keystone(place: Place) -> None:
    for keys in ("fernet-keys", "credential-keys"):
        _write_keys(place, keys)
    _manage(place, "keystone.cmd.manage", "keystone.conf", "db_sync")
    url = place.keystone_url
    _manage(place, "keystone.cmd.manage", "keystone.conf", "bootstrap",
            "--bootstrap-password", PASSWORD,
            "--bootstrap-region-id", "RegionOne", "--bootstrap-admin-url", url,
            "--bootstrap-public-url", url, "--bootstrap-internal-url", url)  # fmt: skip


def _write_keys(place: Place, name: str) -> None:
    """A key to sign with, 1, and the next one, 0, as Keystone rotates them."""
    folder = place.etc(name)
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in ("0", "1"):
        (folder / number).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))


def _glance(place: Place) -> None:
    _manage(place, "glance.cmd.manage", "glance-api.conf", "db_sync")


def _placement(place: Place) -> None:
    _manage(place, "placement.cmd.manage", "placement.conf", "db", "sync")


def _neutron(place: Place) -> None:
    _manage(place, "neutron.db.migration.cli", "neutron.conf", "upgrade", "heads")


def _cinder(place: Place) -> None:
    _manage(place, "cinder.cmd.manage", "cinder.conf", "db", "sync")


def _nova(place: Place) -> None:
    """All cells have one schema: it is made once, and copied."""
    _manage(place, "nova.cmd.manage", "nova-cell1.conf", "api_db", "sync")
    _manage(place, "nova.cmd.manage", "nova-cell1.conf", "db", "sync", "--local_cell")
    schema = subprocess.run(
        ["mariadb-dump", "--no-defaults", "-uroot", "-S", place.database_socket, "nova_cell1"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for database in ("nova_cell0", "nova_cell2"):
        sql(place, f"USE {database};\n{schema}")
    sql(place, _cell_mappings(place))


def _cell_mappings(place: Place) -> str:
    """The cells as `nova-manage cell_v2` would write them, which needs a minute for it."""
    cell0 = f"{place.database_url}/nova_cell0?charset=utf8"
    rows = [(_CELL0, "cell0", "none:///", cell0)]
    for number, cell in enumerate(_CELLS, 1):
        bus = f"{place.bus_url}/{'' if number == 1 else cell}"
        rows.append((_CELL0[:-1] + str(number), cell, bus, place.cell_url(cell)))
    values = ", ".join(f"(now(), {', '.join(map(_quoted, row))})" for row in rows)
    return (
        "INSERT INTO nova_api.cell_mappings "
        f"(created_at, uuid, name, transport_url, database_connection) VALUES {values};"
    )


def _quoted(text: str) -> str:
    return f"'{text}'"


def hosts_known(place: Place) -> int:
    """How many hypervisors have told placement what they have."""
    found = sql(
        place,
        "SELECT count(DISTINCT p.id) FROM placement.resource_providers p "
        "JOIN placement.inventories i ON i.resource_provider_id = p.id",
    )
    return int(found[0][0])


def map_hosts(place: Place) -> None:
    """Tell Nova which cell each hypervisor is in."""
    for host, cell in HOSTS.items():
        sql(
            place,
            "INSERT IGNORE INTO nova_api.host_mappings (created_at, cell_id, host) "
            f"SELECT now(), id, '{host}' FROM nova_api.cell_mappings WHERE name = '{cell}'; "
            f"UPDATE nova_{cell}.compute_nodes SET mapped = 1;",
        )


def _manage(place: Place, module: str, config: str, *words: str) -> None:
    """One of the services' own commands of administration."""
    run = f"import sys; sys.argv[0] = 'manage'; from {module} import main; sys.exit(main())"
    command = [PYTHON, "-c", run, *config_options(place, config), *words]
    _run(place, f"schema-{module.partition('.')[0]}", command)


def _run(place: Place, name: str, command: list[str]) -> None:
    with place.log(name).open("ab") as log:
        done = subprocess.run(command, stdout=log, stderr=log, check=False, cwd=place.folder)
    if done.returncode:
        said = place.log(name).read_text(errors="replace")[-3000:]
        raise NotReady(f"{name} fails\n--- the end of {place.log(name)}\n{said}")
