"""Starts and ends the cloud of a place, step by step; told by the command line, or by the tests.

A repeated start begins again where the last one ended, and starts whatever does not run.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from . import daemons, database, seed, services
from .place import Place

PACKAGES: Final = Path(__file__).parents[1] / "packages.txt"


def missing() -> list[str]:
    """Packages of Debian that are not installed."""
    wanted = [line for line in PACKAGES.read_text().splitlines() if not line.startswith("#")]
    return [package for package in wanted if not _is_installed(package)]


def _is_installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    asked = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(asked, capture_output=True, check=False).stdout == b"installed"


def up(place: Place, say: Callable[[str], object]) -> None:
    """Start all that does not run, and wait until servers can be made."""
    began = time.monotonic()

    def tell(what: str) -> None:
        say(f"[{time.monotonic() - began:6.1f}s] {what}")

    _write_files(place)
    _stores(place)
    tell("the stores run")
    _once(place, "schemas", lambda: _schemas(place))
    tell("the schemas are made")
    start(place, "keystone-api")
    _once(place, "identity", lambda: seed.identity(place))
    tell("Keystone serves, and knows users and services")
    start(place, *(name for name in services.daemons(place) if name not in services.STORES))
    tell("all services run")
    _once(place, "contents", lambda: _contents(place))
    place.run("is-up").touch()
    tell(f"OpenStack is up: {place.keystone_url}, {place.folder}/clouds.yaml")


def down(place: Place, *, keep_data: bool = False) -> None:
    """End all that runs, and leave nothing."""
    place.run("is-up").unlink(missing_ok=True)
    # Nova's services and Neutron's do not end within ten seconds of being told to.
    patience = 10 if keep_data else 1
    others = (name for name in daemons.names(place) if name not in services.STORES)
    daemons.stop(place, *others, patience=patience)
    daemons.stop(place, *services.STORES, patience=20)
    if not keep_data:
        shutil.rmtree(place.folder, ignore_errors=True)


def keep(place: Place, say: Callable[[str], object]) -> None:
    """Start it, and end it when nobody holds `users` any more, however they ended.

    The folder around it goes too: it is that of one run of tests.
    """
    try:
        up(place, say)
    except BaseException:
        down(place)
        raise
    with users(place).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        down(place)
        shutil.rmtree(place.folder.parent, ignore_errors=True)


def users(place: Place) -> Path:
    """A file whose shared lock each user holds; beside the folder, which comes and goes."""
    return place.folder.parent / "users"


def is_up(place: Place) -> bool:
    """Whether a start has come to its end, and nobody stopped it since."""
    return place.run("is-up").exists()


def start(place: Place, *names: str) -> None:
    """Start these, and wait until they serve."""
    known = services.daemons(place)
    for name in names:
        daemons.start(place, known[name])
    for name in names:
        daemons.wait(place, name, f"{name} serves", partial(serves, place, name))


def lacking(place: Place) -> list[str]:
    """What does not run, or stands still, and should not."""
    return [
        name
        for name in services.daemons(place)
        if not daemons.is_running(place, name) or daemons.stands_still(place, name)
    ]


def heal(place: Place) -> None:
    """Start what was stopped, and let go on what was suspended."""
    for door in services.DOORS:
        daemons.resume(place, door)
    start(place, *lacking(place))


def serves(place: Place, name: str) -> bool:
    """Whether it answers; of those that only listen to the bus, whether they run."""
    service = name.removesuffix("-api").removesuffix("-server")
    if name.endswith(("-api", "-server")):
        path = "/v3" if service == "keystone" else "/"
        return services.answers(place.url(service) + path)
    if name == "mariadb":
        return database.answers(place)
    if name in services.STORES:
        return services.listens(place.port(name))
    return daemons.is_running(place, name)


def _write_files(place: Place) -> None:
    for folder in ("etc", "run", "log", "console", "volumes", "rabbit", "lib/locks", "lib/cinder"):
        (place.folder / folder).mkdir(parents=True, exist_ok=True)
    shared = place.filled("shared.conf")
    for name in ("glance-api.conf", "placement.conf", "neutron.conf", "nova.conf", "cinder.conf"):
        place.etc(name).write_text(place.filled(name) + shared)
    for name in (
        "keystone.conf", "nova-cell1.conf", "nova-cell2.conf", "rabbitmq.conf",
        "rabbitmq-definitions.json", "glance-api-paste.ini", "neutron-api-paste.ini",
        "nova-api-paste.ini", "cinder-api-paste.ini",
    ):  # fmt: skip
        place.etc(name).write_text(place.filled(name))
    for host, cell in services.HOSTS.items():
        bus = f"{place.bus_url}/{'' if cell == 'cell1' else cell}"
        text = place.filled("nova-compute.conf", host=host, host_bus_url=bus)
        place.etc(f"{host}.conf").write_text(text)
    (place.folder / "clouds.yaml").write_text(place.filled("clouds.yaml"))


def _stores(place: Place) -> None:
    if not (place.folder / "mariadb" / "mysql").exists():
        database.initialise(place)
    start(place, "epmd", "mariadb", "memcached", *services.DOORS)
    # RabbitMQ takes its time: the schemas are made meanwhile, and the services wait for it.
    daemons.start(place, services.daemons(place)["rabbit"])


def _schemas(place: Place) -> None:
    database.create(place)
    database.fill(place)
    start(place, "rabbit")


def _contents(place: Place) -> None:
    hosts = len(services.HOSTS)
    daemons.wait(
        place,
        "nova-host1",
        f"{hosts} hypervisors tell what they have",
        lambda: database.hosts_known(place) >= hosts,
    )
    daemons.wait(place, "cinder-volume", "Cinder can make volumes", lambda: seed.has_volumes(place))
    database.map_hosts(place)
    seed.contents(place)


def _once(place: Place, what: str, do: Callable[[], object]) -> None:
    """Do it, unless an earlier start did."""
    mark = place.folder / "lib" / f"{what}.done"
    if not mark.exists():
        do()
        mark.touch()
