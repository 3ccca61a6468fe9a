"""Where one OpenStack lies: its folder, its ports, and what its files are filled with.

All else follows from the folder: whoever knows it finds the cloud that runs in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final, Self

from tests.support import ports

FOLDER_VARIABLE: Final = "VMSHEPHERD_OPENSTACK"
PORT_VARIABLE: Final = "VMSHEPHERD_OPENSTACK_PORT"
PASSWORD: Final = "pass-of-the-cloud"
HOST: Final = "127.0.0.1"

# In the order of their ports, from the first one on.
_SERVICES: Final = (
    "keystone", "glance", "placement", "neutron", "nova",
    "mariadb", "memcached", "rabbit", "rabbit_nodes", "epmd", "cell1-door", "cell2-door",
    "cinder",
)  # fmt: skip
PORTS_NEEDED: Final = len(_SERVICES)
# Below the ports that the kernel gives to outgoing connections, and beside those of the stores.
_FIRST, _LAST = 20_000, 29_980
_TEMPLATES: Final = Path(__file__).with_name("etc")


@dataclass(frozen=True)
class Place:
    """A folder, and the first of its ports; two places do not know each other."""

    folder: Path
    first_port: int

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The place that was made there, or a new one on free ports."""
        recorded = folder / "place.json"
        if recorded.exists():
            return cls(folder, json.loads(recorded.read_text())["first_port"])
        wanted = int(os.environ.get(PORT_VARIABLE, "0"))
        made = cls(folder, wanted or _free_ports())
        folder.mkdir(parents=True, exist_ok=True)
        recorded.write_text(json.dumps({"first_port": made.first_port}))
        return made

    def port(self, service: str) -> int:
        """Where it listens."""
        return self.first_port + _SERVICES.index(service)

    def url(self, service: str) -> str:
        """Where an API is reached; its version follows."""
        return f"http://{HOST}:{self.port(service)}"

    @property
    def keystone_url(self) -> str:
        """Where one logs in."""
        return f"{self.url('keystone')}/v3"

    @property
    def database_socket(self) -> Path:
        """Where the database's superuser connects."""
        return self.run("mariadb.sock")

    def etc(self, name: str = "") -> Path:
        """A file of configuration."""
        return self.folder / "etc" / name

    def run(self, name: str) -> Path:
        """A file that tells of a process."""
        return self.folder / "run" / name

    def log(self, name: str) -> Path:
        """What a process says."""
        return self.folder / "log" / f"{name}.log"

    def console(self, server_id: str) -> Path:
        """What a server says, in place of the fake hypervisor's words."""
        return self.folder / "console" / server_id

    @property
    def database_url(self) -> str:
        """Without the name of a database."""
        return f"mysql+pymysql://openstack:openstack@{HOST}:{self.port('mariadb')}"

    def cell_url(self, cell: str) -> str:
        """The database of a cell, through its door."""
        server = self.database_url.replace(
            str(self.port("mariadb")), str(self.port(f"{cell}-door"))
        )
        return f"{server}/nova_{cell}?charset=utf8"

    @property
    def bus_url(self) -> str:
        """The message bus; its virtual host follows."""
        return f"rabbit://guest:guest@{HOST}:{self.port('rabbit')}"

    def filled(self, template: str, **more: str) -> str:
        """A file of `etc` beside this module, with what it is to be filled with here."""
        return Template((_TEMPLATES / template).read_text()).substitute(self._words(), **more)

    def _words(self) -> dict[str, str]:
        return {
            "folder": str(self.folder),
            "password": PASSWORD,
            "keystone_url": self.keystone_url,
            "glance_url": self.url("glance"),
            "cinder_url": self.url("cinder"),
            "neutron_port": str(self.port("neutron")),
            "memcached_port": str(self.port("memcached")),
            "database_url": self.database_url,
            "cell1_url": self.cell_url("cell1"),
            "cell2_url": self.cell_url("cell2"),
            "bus_url": self.bus_url,
        }


def _free_ports() -> int:
    """The first of as many free ports in a row as a cloud needs."""
    return next(
        first for first in _rows() if all(map(ports.is_free, range(first, first + PORTS_NEEDED)))
    )


def _rows() -> Iterator[int]:
    """Processes that run side by side begin at different places."""
    rows = range(_FIRST, _LAST, 2 * PORTS_NEEDED)
    begin = os.getpid() % len(rows)
    yield from (*rows[begin:], *rows[:begin])
