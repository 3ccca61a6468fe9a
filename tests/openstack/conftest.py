"""One real OpenStack for all tests of a run, and for each test a project of its own in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from iaas_service import testing
from iaas_service.drivers.openstack import examine
from tests.openstack import shared
from tests.openstack.cloud.place import Place
from tests.openstack.ground import PATIENCE_SECONDS, OpenStack, Project
from tests.openstack.proxy import Proxy

# Of a test itself: whoever comes first waits for the whole cloud to start, others for their turn.
_TIMEOUT_SECONDS = 900


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: breaks the cloud, so that no other test may use it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def openstack_place() -> Iterator[Place]:
    if (how := shared.missing()) is not None:
        pytest.skip(how)
    with shared.cloud_of_this_run() as place:
        yield place


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the ground waits for its servers, so long do the tests of the port here; and the
    doctor for a login as long as the driver for anything.
    """
    monkeypatch.setattr(testing, "_PATIENCE", timedelta(seconds=PATIENCE_SECONDS))
    monkeypatch.setattr(examine, "_LOGIN_SECONDS", 100.0)


@pytest.fixture
def openstack(openstack_place: Place, request: pytest.FixtureRequest) -> Iterator[OpenStack]:
    """The cloud; all of it runs, whatever the test before did to it."""
    alone = request.node.get_closest_marker("alone") is not None
    with shared.turn(openstack_place, alone=alone):
        cloud = OpenStack(openstack_place, is_alone=alone)
        yield cloud
        cloud.heal()
        cloud.remove_projects()


@pytest.fixture
def project(openstack: OpenStack) -> Project:
    """A project of this test alone; it goes behind the test, with its servers."""
    return openstack.project()


@pytest.fixture(scope="module")
def _for_the_file(openstack_place: Place) -> Iterator[OpenStack]:
    """It holds no turn: each test takes its own, and others may break the cloud between two."""
    cloud = OpenStack(openstack_place, is_alone=False)
    yield cloud
    with shared.turn(openstack_place, alone=False):
        cloud.remove_projects()


@pytest.fixture
def home(openstack: OpenStack, _for_the_file: OpenStack) -> Project:
    """One project for all tests of a file that make no server."""
    return _for_the_file.home


@pytest.fixture
def proxy(openstack: OpenStack) -> Iterator[Proxy]:
    """A proxy in front of the cloud that does as it is told; `proxy.auth_url` leads through it."""
    with Proxy(openstack.place) as proxy:
        yield proxy
