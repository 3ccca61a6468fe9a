"""What an OpenStack consists of: each process's command, and how one sees that it serves.

Pure but for the asking; `program` decides what is started when, tests stop and start them by name.
"""

from __future__ import annotations

import getpass
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .daemons import Daemon
from .place import HOST, Place

DOORS: Final = ("cell1-door", "cell2-door")
STORES: Final = ("mariadb", "memcached", "epmd", "rabbit", *DOORS)
# Hypervisors, and the cell of each; a third of all servers lives in the second cell.
HOSTS: Final[Mapping[str, str]] = {"host1": "cell1", "host2": "cell1", "host3": "cell2"}
NOVA: Final = (
    "nova-api", "nova-conductor", "nova-conductor2", "nova-scheduler",
    *(f"nova-{host}" for host in HOSTS),
)  # fmt: skip

PYTHON: Final = "/usr/bin/python3"  # Debian's, which has the packages
_WITHIN: Final = Path(__file__).with_name("within")
_API_PROCESSES: Final = {"keystone": 2, "glance": 1, "placement": 2, "nova": 3, "cinder": 1}


def daemons(place: Place) -> dict[str, Daemon]:
    """All of them, by name."""
    made = [
        _mariadb(place),
        _memcached(place),
        _epmd(place),
        _rabbit(place),
        *(_door(place, door) for door in DOORS),
        *(_api(place, service) for service in _API_PROCESSES),
        _program(place, "neutron-server", "neutron.cmd.eventlet.server", "neutron.conf"),
        _nova(place, "nova-conductor", "nova.cmd.conductor", "nova-cell1.conf"),
        _nova(place, "nova-conductor2", "nova.cmd.conductor", "nova-cell2.conf"),
        _nova(place, "nova-scheduler", "nova.cmd.scheduler", "nova-cell1.conf"),
        _program(place, "cinder-scheduler", "cinder.cmd.scheduler", "cinder.conf"),
        _program(place, "cinder-volume", "cinder.cmd.volume", "cinder.conf"),
        *(_nova(place, f"nova-{host}", "ground_compute", f"{host}.conf") for host in HOSTS),
    ]
    return {daemon.name: daemon for daemon in made}


def _mariadb(place: Place) -> Daemon:
    """Its data are worth nothing, so it does not wait for the disk."""
    options = {
        "datadir": place.folder / "mariadb",
        "socket": place.database_socket,
        "pid-file": place.run("mariadb.own"),
        "user": getpass.getuser(),
        "bind-address": HOST,
        "port": place.port("mariadb"),
        "max-connections": 800,
        "innodb-buffer-pool-size": "256M",
        "innodb-flush-log-at-trx-commit": 0,
        "innodb-doublewrite": 0,
        "character-set-server": "utf8mb3",
        "collation-server": "utf8mb3_general_ci",
    }
    flags = ("--no-defaults", "--skip-log-bin", "--skip-name-resolve")
    given = (f"--{name}={value}" for name, value in options.items())
    return Daemon(name="mariadb", command=("/usr/sbin/mariadbd", *flags, *given))


def _memcached(place: Place) -> Daemon:
    port = str(place.port("memcached"))
    who = getpass.getuser()
    command = ("memcached", "-u", who, "-l", HOST, "-p", port, "-m", "64")
    return Daemon(name="memcached", command=command)


def _epmd(place: Place) -> Daemon:
    """Where Erlang's nodes find one another: of our own, or RabbitMQ leaves one that stays."""
    port = str(place.port("epmd"))
    return Daemon(name="epmd", command=("epmd", "-address", HOST, "-port", port))


def _rabbit(place: Place) -> Daemon:
    home = place.folder / "rabbit"
    port = place.port("rabbit")
    erlang = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false"
    return Daemon(
        name="rabbit",
        command=("/usr/lib/rabbitmq/bin/rabbitmq-server",),
        environment={
            "HOME": home,
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(place.port("epmd")),
            "RABBITMQ_NODENAME": f"ground{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(place.port("rabbit_nodes")),
            "RABBITMQ_MNESIA_BASE": home / "mnesia",
            "RABBITMQ_LOG_BASE": home / "log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": home / "pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": place.etc("rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": home / "plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"{erlang} -kernel inet_dist_use_interface {{127,0,0,1}}"
            ),
        },
    )


def _door(place: Place, name: str) -> Daemon:
    ports = (str(place.port(name)), str(place.port("mariadb")))
    return Daemon(name=name, command=(PYTHON, Path(__file__).with_name("door.py"), *ports))


def _api(place: Place, service: str) -> Daemon:
    flags = (
        "master", "die-on-term", "need-app", "no-orphans", "lazy-apps", "enable-threads",
        "thunder-lock", "disable-logging",
    )  # fmt: skip
    options = {
        "plugin": "python311",
        "processes": _API_PROCESSES[service],
        "threads": 1,
        "buffer-size": 65535,
        "listen": 100,
        "worker-reload-mercy": 2,
        "hook-master-start": "unix_signal:15 gracefully_kill_them_all",
        "add-header": "Connection: close",
        "http-socket": f"{HOST}:{place.port(service)}",
        "wsgi-file": _WITHIN / "ground_wsgi.py",
    }
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return Daemon(
        name=f"{service}-api",
        command=("uwsgi_python311", *(f"--{flag}" for flag in flags), *given),
        environment={
            "GROUND_SERVICE": service,
            "OS_KEYSTONE_CONFIG_FILES": place.etc("keystone.conf"),
            "OS_GLANCE_CONFIG_DIR": place.etc(),
            "OS_PLACEMENT_CONFIG_DIR": place.etc(),
            "GROUND_CINDER_CONFIG": place.etc("cinder.conf"),
            "OS_NOVA_CONFIG_DIR": place.etc(),
            "OS_NOVA_CONFIG_FILES": "nova-api-paste.ini;nova.conf;nova-cell1.conf",
        },
    )


def _nova(place: Place, name: str, module: str, own: str) -> Daemon:
    return _program(place, name, module, "nova.conf", own)


def _program(place: Place, name: str, module: str, *configs: str) -> Daemon:
    """A service that is a Python program; it is named in the list of processes."""
    run = f"import sys; sys.argv[0] = '{name}'; from {module} import main; sys.exit(main())"
    return Daemon(
        name=name,
        command=(PYTHON, "-c", run, *config_options(place, *configs)),
        environment={"PYTHONPATH": _WITHIN, "GROUND_FOLDER": place.folder},
    )


def config_options(place: Place, *configs: str) -> list[str]:
    """How a program of OpenStack is told its files."""
    return [word for config in configs for word in ("--config-file", str(place.etc(config)))]


def answers(url: str) -> bool:
    """Whether an API is there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=20):
            return True
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code == 300  # a choice of versions
    except OSError:
        return False


def listens(port: int) -> bool:
    """Whether somebody takes connections."""
    try:
        with socket.create_connection((HOST, port), timeout=5):
            return True
    except OSError:
        return False
