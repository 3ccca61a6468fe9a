"""The real cloud as a test sees it: projects of its own, faults on demand, and the bare truth.

    openstack.project()               # a Project: credentials for the driver, an Api beside it
    with openstack.cell_down(): ...   # Nova cannot reach the servers of the second cell
    openstack.servers(project)        # by the database: what really is there

Never asks the driver, nor the library that it uses.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from tests.openstack.cloud import daemons, database, program, seed, services
from tests.openstack.cloud.api import Api, Refused
from tests.openstack.cloud.place import HOST, PASSWORD, Place

# On two cores that others use as well, a server may take a minute to come or go.
PATIENCE_SECONDS: Final = 240.0
# An order to delete that had no effect by then may have been lost with the bus.
_LOST_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Project:
    """A project of one test, with a user who is in no other, the key `ops` and the group `web`."""

    place: Place
    api: Api

    @property
    def name(self) -> str:
        """Its name; the user's is the same."""
        return self.api.project

    @property
    def project_id(self) -> str:
        """Its id."""
        return self.api.project_id

    def credentials(self, auth_url: str = "") -> dict[str, str]:
        """What one logs in with; the proxy's `auth_url` leads through the proxy."""
        return {
            "auth_url": auth_url or self.place.keystone_url,
            "username": self.api.user,
            "password": PASSWORD,
            "project_name": self.name,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }

    def order(self, name: str, **more: Any) -> str:
        """Ask for a small server of image `debian` beside the driver; its id."""
        wanted = {
            "name": name,
            "imageRef": self._image("debian"),
            "flavorRef": self._id("compute", "/flavors", "small"),
            "networks": [{"uuid": self._id("network", "/v2.0/networks", "private")}],
        }
        made = self.api.post("compute", "/servers", {"server": {**wanted, **more}})
        return str(made["server"]["id"])

    def server(self, server_id: str) -> dict[str, Any]:
        """A server as Nova shows it to this project."""
        found: dict[str, Any] = self.api.get("compute", f"/servers/{server_id}")["server"]
        return found

    def act(self, server_id: str, action: str, value: Any = None) -> Any:
        """What a person would do to a server: `os-stop`, `suspend`, `lock`, ..."""
        return self.api.post("compute", f"/servers/{server_id}/action", {action: value})

    def delete(self, server_id: str) -> None:
        """Behind the driver's back; it takes a moment."""
        self.api.delete("compute", f"/servers/{server_id}")

    def _image(self, name: str) -> str:
        images = self.api.get("image", f"/v2/images?name={name}")["images"]
        return str(images[0]["id"])

    def _id(self, service: str, path: str, name: str) -> str:
        [found] = (each for each in self.api.get(service, path).values() if isinstance(each, list))
        return next(str(each["id"]) for each in found if each["name"] == name)


class OpenStack:
    """The cloud of one place."""

    def __init__(self, place: Place, *, is_alone: bool) -> None:
        self.place = place
        self.admin = seed.admin(place)
        self._lost_its_bus = False
        self._projects: list[Project] = []
        self._is_alone = is_alone

    # Projects

    def project(self) -> Project:
        """A new one, without limits; the fixture `openstack` removes it behind the test."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self._make_member(name)
        api = Api(self.place.keystone_url, user=name, password=PASSWORD, project=name)
        seed.equip(api.log_in())
        made = Project(self.place, api)
        self._projects.append(made)
        return made

    @cached_property
    def home(self) -> Project:
        """One that is made when it is first asked for, and stays as long as the others."""
        return self.project()

    def _make_member(self, name: str) -> None:
        """A project and a user of that name, of whom one knows that they are new."""
        wanted = {"name": name, "domain_id": "default"}
        project = self.admin.post("identity", "/projects", {"project": wanted})["project"]["id"]
        secret = {**wanted, "password": PASSWORD}
        user = self.admin.post("identity", "/users", {"user": secret})["user"]["id"]
        role = self.admin.get("identity", "/roles?name=member")["roles"][0]["id"]
        self.admin.put("identity", f"/projects/{project}/users/{user}/roles/{role}")

    def remove_projects(self) -> None:
        """All that were made here, with their servers and users."""
        for project in self._projects:
            self.clear(project)
            self._forget_volumes(project)
            self.admin.delete("identity", f"/users/{project.api.user_id}")
            self.admin.delete("identity", f"/projects/{project.project_id}")
        self._projects.clear()

    def clear(self, project: Project) -> None:
        """Delete what servers it has, and wait until none is left."""
        asked: dict[str, float] = {}
        until(lambda: not self._deleting(project, asked), f"no server is left in {project.name}")

    def _deleting(self, project: Project, asked: dict[str, float]) -> dict[str, str]:
        """Ask to delete what is left: again and again what is refused, as some may not just now and
        others are locked; and after a while what was accepted, and perhaps lost.
        """
        left = self.servers(project)
        now = time.monotonic()
        for server_id in left:
            if now - asked.get(server_id, -_LOST_SECONDS) < _LOST_SECONDS:
                continue
            with suppress(Refused):
                project.act(server_id, "unlock")
            with suppress(Refused):
                project.delete(server_id)
                asked[server_id] = now
        return left

    def make_admin(self, project: Project) -> None:
        """Its user may choose hosts then: `availability_zone="north:host3"`."""
        seed.add_member(self.admin, project.api.user, project.name, "admin")
        project.api.log_in()

    def set_quota(self, project: Project, **limits: int) -> None:
        """`instances=3`, `cores=…`, `ram=…`; -1 is no limit."""
        wanted = {"quota_set": {**limits, "force": True}}
        self.admin.put("compute", f"/os-quota-sets/{project.project_id}", wanted)

    def revoke_tokens(self, project: Project) -> None:
        """All tokens of its user, at once and for all services; those of later are good."""
        user = f"/users/{project.api.user_id}"
        for enabled in (False, True):
            self.admin.call("PATCH", "identity", user, {"user": {"enabled": enabled}})
        # Keystone counts in seconds: a token of this one would have ended, too.
        later = int(time.time()) + 1
        until(lambda: time.time() >= later, "a second has passed")
        self.forget_tokens()

    def forget_tokens(self) -> None:
        """Let every service ask Keystone anew about each token."""
        with socket.create_connection((HOST, self.place.port("memcached"))) as cache:
            cache.sendall(b"flush_all\r\nquit\r\n")
            assert cache.recv(100) == b"OK\r\n"

    # Servers

    def servers(self, project: Project) -> dict[str, str]:
        """The status in the database of each server that is not deleted, by its id."""
        # First those without a cell: who leaves them while one looks, stands in a cell by then.
        rows = database.sql(
            self.place,
            "SELECT instance_uuid, 'building' FROM nova_api.build_requests "
            f"WHERE project_id = '{project.project_id}'",
        )
        # Whoever has arrived in a cell is not building any more.
        rows += self._of_cells(
            "SELECT uuid, vm_state FROM nova_{cell}.instances "
            f"WHERE deleted = 0 AND project_id = '{project.project_id}'"
        )
        return _pairs(rows)

    def metadata(self, server_id: str) -> dict[str, str]:
        """What is written in the database upon a server."""
        return _pairs(
            self._of_cells(
                "SELECT `key`, value FROM nova_{cell}.instance_metadata "
                f"WHERE deleted = 0 AND instance_uuid = '{server_id}'"
            )
        )

    def _of_cells(self, select: str) -> list[list[str]]:
        """The rows of every cell's database; `{cell}` stands for its name."""
        cells = (select.replace("{cell}", cell) for cell in ("cell0", "cell1", "cell2"))
        return [row for each in cells for row in database.sql(self.place, each)]

    def ports(self, project: Project) -> dict[str, str]:
        """The server of each port, by the port's id."""
        rows = database.sql(
            self.place,
            f"SELECT id, device_id FROM neutron.ports WHERE project_id = '{project.project_id}'",
        )
        return _pairs(rows)

    def volumes(self, project: Project) -> dict[str, str]:
        """The status of each volume, by its id."""
        rows = database.sql(
            self.place,
            "SELECT id, status FROM cinder.volumes "
            f"WHERE deleted = 0 AND project_id = '{project.project_id}'",
        )
        return _pairs(rows)

    @contextmanager
    def volumes_fail(self, project: Project, deed: str) -> Iterator[None]:
        """What stores the project's volumes can not `create` any, or not `delete` them."""
        mark = self.place.folder / "volumes" / f"{project.project_id}.{deed}"
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()

    def set_volume_quota(self, project: Project, **limits: int) -> None:
        """`volumes=1`, `gigabytes=…`; -1 is no limit."""
        path = f"/os-quota-sets/{project.project_id}"
        self.admin.put("volumev3", path, {"quota_set": limits})

    def _forget_volumes(self, project: Project) -> None:
        """They are nothing but rows."""
        database.sql(
            self.place,
            "UPDATE cinder.volumes SET deleted = 1, status = 'deleted' "
            f"WHERE project_id = '{project.project_id}'",
        )

    def cell_of(self, server_id: str) -> str:
        """Where it lives: cell1 or cell2; cell0 if it fitted nowhere, "" if that is not decided."""
        rows = database.sql(
            self.place,
            "SELECT c.name FROM nova_api.instance_mappings m "
            "JOIN nova_api.cell_mappings c ON c.id = m.cell_id "
            f"WHERE m.instance_uuid = '{server_id}'",
        )
        return rows[0][0] if rows else ""

    def wait_until_counted(self, project: Project) -> None:
        """Quotas count a server when it has been given to a cell, a moment after its order."""
        until(lambda: all(map(self.cell_of, self.servers(project))), "all are in a cell")

    @contextmanager
    def only_in(self, cell: str) -> Iterator[None]:
        """What is ordered within the block is made in that cell."""
        self._alone()
        others = [host for host, its in services.HOSTS.items() if its != cell]
        found = self.admin.get("compute", "/os-services?binary=nova-compute")["services"]
        closed = [each["id"] for each in found if each["host"] in others]
        try:
            for service in closed:
                self._open(service, "disabled")
            yield
        finally:
            for service in closed:
                self._open(service, "enabled")

    def _open(self, service: str, status: str) -> None:
        self.admin.put("compute", f"/os-services/{service}", {"status": status})

    def set_state(self, server_id: str, state: str) -> None:
        """Let Nova call it `error` or `active`, whatever it is."""
        body = {"os-resetState": {"state": state}}
        self.admin.post("compute", f"/servers/{server_id}/action", body)

    def keep_for_a_while(self, server_id: str) -> None:
        """Let it be SOFT_DELETED, as where a cloud reclaims what was deleted some time later."""
        for cell in ("cell1", "cell2"):
            database.sql(
                self.place,
                f"UPDATE nova_{cell}.instances SET vm_state = 'soft-delete', updated_at = "
                f"UTC_TIMESTAMP() WHERE uuid = '{server_id}'",
            )

    def say(self, server_id: str, text: str) -> None:
        """Let this be on its console."""
        self.place.console(server_id).write_text(text)

    def wait_for(self, project: Project, server_id: str, status: str) -> dict[str, Any]:
        """The server, once its status is that."""
        until(lambda: project.server(server_id)["status"] == status, f"{server_id} is {status}")
        return project.server(server_id)

    def wait_for_fault(self, project: Project, server_id: str) -> str:
        """Why Nova gave it up, which is written a moment after its status."""
        until(lambda: "fault" in project.server(server_id), f"the fault of {server_id} is told")
        server = project.server(server_id)
        assert server["status"] == "ERROR"
        return str(server["fault"]["message"])

    def wait_until_it_builds(self) -> None:
        """An order that is given while the bus comes back may be lost, and its server is for ever
        about to be built: each host is tried, for each finds the bus by itself.
        """
        project = self.project()
        self.make_admin(project)
        for host in services.HOSTS:
            orders: list[str] = []
            builds = partial(self._builds, project, host, orders)
            until(builds, f"{host} builds servers", seconds=3 * PATIENCE_SECONDS)
        self._lost_its_bus = False

    def _builds(self, project: Project, host: str, orders: list[str]) -> bool:
        """Order one more.  Those before it may have been lost, or the machine is slow: any will
        do.
        """
        orders.append(project.order("probe", availability_zone=f"{seed.ZONE}:{host}"))

        def is_built() -> bool:
            found = self.servers(project)
            return any(found.get(each) == "active" for each in orders)

        with suppress(AssertionError):
            until(is_built, "built", seconds=15)
        return is_built()

    # Faults, of which others would suffer

    def _alone(self) -> None:
        assert self._is_alone, "a test that breaks the cloud is marked so: pytest.mark.alone"

    def stop(self, *names: str) -> None:
        """End processes: `nova-api`, `rabbit`, ...; `cloud.services` has their names."""
        self._alone()
        known = services.daemons(self.place)
        unknown = [name for name in names if name not in known]
        assert not unknown, f"no process is called {', '.join(unknown)}; known: {', '.join(known)}"
        self._lost_its_bus |= "rabbit" in names
        daemons.stop(self.place, *names, patience=5)

    def start(self, *names: str) -> None:
        """Start them again, and wait until they serve."""
        program.start(self.place, *names)

    def restart(self, *names: str) -> None:
        """Stop and start."""
        self.stop(*names)
        self.start(*names)

    def heal(self) -> None:
        """Start again all that was stopped here, and wait until servers are built."""
        if self._is_alone:
            program.heal(self.place)
        if self._lost_its_bus:
            self.wait_until_it_builds()

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """These do not run within the block."""
        self.stop(*names)
        try:
            yield
        finally:
            self.start(*names)

    @contextmanager
    def cell_down(self, cell: str = "cell2") -> Iterator[None]:
        """Nova cannot reach the database of that cell, and is told so at once."""
        with self.without(f"{cell}-door"):
            yield

    @contextmanager
    def cell_silent(self, cell: str = "cell2") -> Iterator[None]:
        """The database of that cell does not answer; Nova gives it up after a minute."""
        self._alone()
        daemons.suspend(self.place, f"{cell}-door")
        try:
            yield
        finally:
            daemons.resume(self.place, f"{cell}-door")


def _pairs(rows: Iterable[list[str]]) -> dict[str, str]:
    return {row[0]: row[1] for row in rows}


def until(is_so: Callable[[], bool], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
