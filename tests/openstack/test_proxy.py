"""The proxy does harm as it is told, and none besides."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing

import pytest

from tests.openstack.cloud import seed
from tests.openstack.cloud.api import Api, Refused
from tests.openstack.faults import (
    Closed,
    Fault,
    Forgetful,
    Page,
    Refusal,
    Truncated,
    Unanswered,
)
from tests.openstack.ground import OpenStack, Project, until
from tests.openstack.proxy import Proxy

KEYS = "/os-keypairs"
A_KEY = {"keypair": {"name": "mine", "public_key": seed.KEY}}


@pytest.fixture
def through(project: Project, proxy: Proxy) -> Api:
    """The API of the project, through the proxy."""
    api = project.api
    return Api(proxy.auth_url, user=api.user, password=api.password, project=api.project).log_in()


def keys(api: Api) -> set[str]:
    """The keys of the user, of whom each has `ops` from the start."""
    return {each["keypair"]["name"] for each in api.get("compute", KEYS)["keypairs"]}


def test_without_a_fault_all_is_as_without_a_proxy(project: Project, through: Api) -> None:
    for service, path in (
        ("identity", "/auth/projects"),
        ("compute", "/servers/detail"),
        ("image", "/v2/images?name=debian"),
        ("network", "/v2.0/networks"),
        ("compute", "/flavors/detail"),
    ):
        assert _names(through.get(service, path)) == _names(project.api.get(service, path))


def _names(said: object) -> object:
    """An answer without its links, which lead through the proxy."""
    if isinstance(said, dict):
        return {key: _names(value) for key, value in said.items() if key != "links"}
    return [_names(each) for each in said] if isinstance(said, list) else said


def test_the_catalog_and_the_links_lead_through_the_proxy(
    openstack: OpenStack, proxy: Proxy, project: Project, through: Api
) -> None:
    assert set(through.endpoints.values()) == {
        proxy.auth_url,
        proxy.url("image"),
        proxy.url("placement"),
        proxy.url("network"),
        f"{proxy.url('compute')}/v2.1",
        f"{proxy.url('block-storage')}/v3",
        f"{proxy.url('block-storage')}/v3/{through.project_id}",
    }
    for name in ("one", "two"):
        project.order(name)
    [link] = through.get("compute", "/servers?limit=1")["servers_links"]
    assert link["href"].startswith(proxy.url("compute"))


def test_calls_are_counted_by_kind(proxy: Proxy, through: Api) -> None:
    with proxy.counting() as calls:
        through.get("compute", "/servers/detail?limit=5")
        through.get("compute", "/servers/detail?limit=6")
        with pytest.raises(Refused, match="404"):
            through.get("compute", "/servers/00000000-0000-0000-0000-000000000000")
    assert calls == {"compute GET /servers/detail": 2, "compute GET /servers/{id}": 1}


@pytest.mark.parametrize("forwarded", [True, False])
@pytest.mark.parametrize("status", [409, 413, 429, 500, 503])
def test_the_client_hears_an_error_whether_the_cloud_did_it_or_not(
    proxy: Proxy, project: Project, through: Api, *, status: int, forwarded: bool
) -> None:
    rule = proxy.on("compute", "POST", KEYS, Refusal(status=status, forwarded=forwarded), times=1)
    with pytest.raises(Refused) as refused:
        through.post("compute", KEYS, A_KEY)
    assert refused.value.status == status
    assert ("mine" in keys(project.api)) is forwarded
    assert rule.met == ["POST /v2.1/os-keypairs"]


@pytest.mark.parametrize("forwarded", [True, False])
def test_the_connection_ends_whether_the_cloud_did_it_or_not(
    proxy: Proxy, project: Project, through: Api, *, forwarded: bool
) -> None:
    with (
        proxy.while_("compute", "POST", KEYS, Closed(forwarded=forwarded)),
        pytest.raises(http.client.RemoteDisconnected),
    ):
        through.post("compute", KEYS, A_KEY)
    assert ("mine" in keys(project.api)) is forwarded
    assert keys(through) == keys(project.api)


@pytest.mark.parametrize("forwarded", [True, False])
def test_no_answer_comes_whether_the_cloud_did_it_or_not(
    proxy: Proxy, project: Project, through: Api, *, forwarded: bool
) -> None:
    proxy.on("compute", "POST", KEYS, Unanswered(forwarded=forwarded))
    with (
        closing(asked(proxy, through, "POST", "/v2.1/os-keypairs", A_KEY)) as connection,
        pytest.raises(TimeoutError),
    ):
        connection.getresponse()
    if forwarded:
        until(lambda: "mine" in keys(project.api), "the cloud did it")
    assert ("mine" in keys(project.api)) is forwarded


def asked(
    proxy: Proxy, api: Api, method: str, path: str, body: object = None, *, seconds: float = 2
) -> http.client.HTTPConnection:
    """A request that was sent; whoever waits for the answer gives it up after so long."""
    address = proxy.url("compute").removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=seconds)
    headers = {"X-Auth-Token": api.token, "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    return connection


def test_an_answer_comes_late(proxy: Proxy, through: Api) -> None:
    proxy.on("compute", "GET", "/servers", Fault(seconds=0.5))
    began = time.monotonic()
    through.get("compute", "/servers")
    assert time.monotonic() - began >= 0.5


def test_headers_of_a_refusal_are_told(proxy: Proxy, through: Api) -> None:
    proxy.on("compute", "*", ".*", Refusal(status=429, headers={"Retry-After": "3"}))
    with closing(asked(proxy, through, "GET", "/v2.1/servers", seconds=100)) as connection:
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")


def test_a_body_breaks_off(proxy: Proxy, through: Api) -> None:
    proxy.on("compute", "GET", "/flavors", Truncated(), times=1)
    with pytest.raises(http.client.IncompleteRead):
        through.get("compute", "/flavors")
    assert through.get("compute", "/flavors")["flavors"]


@pytest.mark.parametrize("fault", [Truncated(claims_whole=True), Page(), Page(forwarded=False)])
def test_a_body_is_no_json(proxy: Proxy, through: Api, fault: Fault) -> None:
    proxy.on("compute", "GET", "/flavors", fault, times=1)
    with pytest.raises(json.JSONDecodeError):
        through.get("compute", "/flavors")
    assert through.get("compute", "/flavors")["flavors"]


def test_lists_lack_the_newest_servers(
    openstack: OpenStack, proxy: Proxy, project: Project, through: Api
) -> None:
    mine = Project(openstack.place, through)
    ids = [mine.order(name) for name in ("one", "two", "three")]
    with proxy.while_("compute", "GET", "/servers(/detail)?", Forgetful(servers=2)):
        for path in ("/servers", "/servers/detail"):
            listed = through.get("compute", path)["servers"]
            assert [server["id"] for server in listed] == ids[:1]
        assert mine.server(ids[2])["name"] == "three"
    assert len(through.get("compute", "/servers")["servers"]) == 3


def test_a_fault_comes_so_often_and_no_more(proxy: Proxy, through: Api) -> None:
    rule = proxy.on("compute", "GET", "/servers", Refusal(status=500), after=1, times=2)
    assert [outcome(through) for _ in range(5)] == [200, 500, 500, 200, 200]
    assert len(rule.met) == 2
    rule = proxy.on("compute", "GET", "/servers", Refusal(status=500), probability=0.5)
    met = [outcome(through) for _ in range(20)].count(500)
    assert 0 < met < 20
    assert met == len(rule.met)
    proxy.calm()
    assert outcome(through) == 200


def outcome(api: Api) -> int:
    """The status of a listing."""
    try:
        api.get("compute", "/servers")
    except Refused as refused:
        return refused.status
    return 200


def test_a_token_is_refused_once(proxy: Proxy, through: Api) -> None:
    proxy.on("compute", "GET", "/servers", Refusal(status=401, forwarded=False), times=1)
    with proxy.counting() as calls:
        assert outcome(through) == 200
    assert calls == {"compute GET /servers": 2, "identity POST /auth/tokens": 1}


def test_a_rule_meets_its_kind_alone(proxy: Proxy, project: Project, through: Api) -> None:
    proxy.on("compute", "DELETE", "/os-keypairs/[^/]+", Refusal(status=503, forwarded=False))
    proxy.on("image", "*", ".*", Refusal(status=503, forwarded=False))
    assert "ops" in keys(through)
    with pytest.raises(Refused, match="503"):
        through.delete("compute", f"{KEYS}/ops")
    with pytest.raises(Refused, match="503"):
        through.get("image", "/v2/images")
    assert "ops" in keys(project.api)


def test_a_cloud_that_is_away_is_away_through_the_proxy_too(proxy: Proxy, through: Api) -> None:
    proxy.on("*", "*", ".*", Closed(forwarded=False))
    with pytest.raises(http.client.RemoteDisconnected):
        through.get("network", "/v2.0/networks")
