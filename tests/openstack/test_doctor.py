"""What a newcomer can have wrong with an OpenStack, each told in a sentence of its own."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from iaas_service.domain import Check, CheckStatus, Spec
from iaas_service.drivers.openstack import examine as examining
from tests.e2e.daemon import VMSHEPHERD
from tests.openstack.clocks import WrongClock
from tests.openstack.cloud import seed
from tests.openstack.cloud.api import Api
from tests.openstack.cloud.place import PASSWORD
from tests.openstack.driver import checked, driver, driver_of
from tests.openstack.faults import Closed, Page, Refusal, Unanswered
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy

REST = ("clock", "Nova", "Glance", "Neutron", "Placement", "offers", "leftovers")


async def credentials(options: dict[str, Any]) -> Check:
    """What is said of credentials that are wrong; nothing else is checked with them."""
    found = await checked(driver_of(options))
    assert {found[name].status for name in REST} == {CheckStatus.UNCHECKED}
    assert found["credentials"].status is CheckStatus.WRONG
    assert found["credentials"].bars
    assert "Request-ID" not in found["credentials"].message
    return found["credentials"]


async def test_of_a_cloud_that_is_fine_nothing_is_wrong(
    openstack: OpenStack, home: Project
) -> None:
    found = await checked(driver(home))
    assert list(found) == ["credentials", *REST]
    assert {check.status for check in found.values()} == {CheckStatus.OK}, found
    assert home.name in found["credentials"].message
    assert "microversion 2.93" in found["Nova"].message


async def test_a_wrong_password_an_unknown_user_and_an_unknown_domain(
    openstack: OpenStack, home: Project
) -> None:
    for wrong in ({"password": "x"}, {"username": "nobody"}, {"user_domain_name": "nowhere"}):
        check = await credentials({**home.credentials(), **wrong})
        assert "does not accept user" in check.message
        assert "username, password or user_domain_name" in check.way_out
        assert "iaas.providers.osk.options" in check.way_out


async def test_an_unknown_project_and_one_without_a_role_are_told_with_those_that_there_are(
    openstack: OpenStack, home: Project
) -> None:
    for wrong in ("nothing", "demo2"):
        check = await credentials({**home.credentials(), "project_name": wrong})
        assert f"project {wrong!r} does not exist or the user has no role in it" in check.message
        assert f"projects of the user: {home.name}" in check.message


async def test_a_user_who_may_only_look_is_told_before_the_first_create(
    openstack: OpenStack,
) -> None:
    name = openstack.project().name
    reader = f"{name}-reader"
    seed.add_member(openstack.admin, reader, name, "reader")
    api = Api(openstack.place.keystone_url, user=reader, password=PASSWORD, project=name)
    found = await checked(driver(Project(openstack.place, api)))
    assert found["credentials"].status is CheckStatus.WRONG
    assert "it may look, and make nothing" in found["credentials"].message
    assert found["Nova"].status is CheckStatus.OK


async def test_a_region_that_is_none_is_told_with_those_that_there_are(
    openstack: OpenStack, home: Project
) -> None:
    found = await checked(driver(home, region="RegionNine"))
    assert found["credentials"].status is CheckStatus.OK
    assert found["Nova"].status is found["Neutron"].status is CheckStatus.WRONG
    assert "no compute service for region RegionNine" in found["Nova"].message
    assert "RegionOne, RegionTwo" in found["Nova"].way_out
    assert found["offers"].status is CheckStatus.UNCHECKED


async def test_a_host_that_has_no_name_refuses_or_is_silent(home: Project) -> None:
    no_name = {**home.credentials(), "auth_url": "http://no-such-host.invalid:5000/v3"}
    assert "cannot be resolved" in (await credentials(no_name)).message
    with _port() as port:
        refusing = {**home.credentials(), "auth_url": f"http://127.0.0.1:{port}/v3"}
    assert "the connection is refused" in (await credentials(refusing)).message


async def test_a_keystone_that_never_answers_is_told_as_such(
    home: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "_LOGIN_SECONDS", 0.5)
    proxy.on("identity", "*", "/.*", Unanswered(forwarded=False))
    check = await credentials(home.credentials(proxy.auth_url))
    assert "gives no answer in time" in check.message
    assert "firewall" in check.way_out


async def test_what_is_no_keystone_is_told_as_such(openstack: OpenStack, home: Project) -> None:
    glance = openstack.place.url("glance")
    elsewhere = openstack.place.keystone_url.removesuffix("/v3") + "/nope"
    for url in (f"{glance}/v3", elsewhere):
        check = await credentials({**home.credentials(), "auth_url": url})
        assert "there is no Keystone at" in check.message
        assert "ends in /v3" in check.way_out


async def test_a_web_page_in_place_of_keystone_is_told_as_such(home: Project, proxy: Proxy) -> None:
    for status in (200, 405):
        with proxy.while_("identity", "*", "/.*", Page(status=status, forwarded=False)):
            check = await credentials(home.credentials(proxy.auth_url))
        assert "there is no Keystone at" in check.message
        assert "ends in /v3" in check.way_out


async def test_credentials_that_lack_a_domain_or_a_project_are_told_what_they_lack(
    openstack: OpenStack, home: Project, tmp_path: Path
) -> None:
    given = home.credentials()
    mine = f"no project is named; projects of the user: {home.name}"
    for lacking, told in (("user_domain_name", "domain"), ("project_name", mine)):
        auth = {key: value for key, value in given.items() if key != lacking}
        file = tmp_path / "clouds.yaml"
        file.write_text(yaml.safe_dump({"clouds": {"here": {"auth": auth}}}))
        check = await credentials({"cloud": "here", "clouds_file": str(file)})
        assert told in check.message
        assert lacking in check.way_out
        assert "cloud 'here' of clouds.yaml" in check.way_out


async def test_tls_where_there_is_none_and_a_certificate_that_nobody_trusts(
    openstack: OpenStack, home: Project, tmp_path: Path
) -> None:
    plain = openstack.place.keystone_url.replace("http://", "https://")
    check = await credentials({**home.credentials(), "auth_url": plain})
    assert "no TLS with" in check.message
    assert "http://" in check.way_out
    with _self_signed(tmp_path) as url:
        check = await credentials({**home.credentials(), "auth_url": url})
    assert "is not trusted: self-signed certificate" in check.message
    assert "ca_file" in check.way_out


async def test_an_application_credential_and_a_token_that_do_not_hold(
    openstack: OpenStack, home: Project
) -> None:
    auth_url = home.credentials()["auth_url"]
    application = {
        "auth_url": auth_url,
        "application_credential_id": "0" * 32,
        "application_credential_secret": "x",
    }
    assert "accept the application credential" in (await credentials(application)).message
    token = {"auth_url": auth_url, "token": "gAAAAA", "project_name": home.name}
    assert "does not accept the token" in (await credentials(token)).message


async def test_an_application_credential_of_another_project_than_is_named_is_told(
    openstack: OpenStack, home: Project
) -> None:
    path = f"/users/{home.api.user_id}/application_credentials"
    made = home.api.post("identity", path, {"application_credential": {"name": "trial"}})
    found = await checked(
        driver_of(
            {
                "auth_url": home.credentials()["auth_url"],
                "application_credential_id": made["application_credential"]["id"],
                "application_credential_secret": made["application_credential"]["secret"],
                "project_name": "elsewhere",
            }
        )
    )
    assert found["credentials"].status is CheckStatus.WRONG
    assert f"are of project {home.name}, not of elsewhere" in found["credentials"].message


async def test_a_service_that_fails_is_told_apart_from_the_others(
    home: Project, proxy: Proxy
) -> None:
    with proxy.while_("image", "*", "/.*", Closed(forwarded=False)):
        found = await checked(driver(home, auth_url=proxy.auth_url))
    assert found["Glance"].status is CheckStatus.WRONG
    assert found["Nova"].status is found["Neutron"].status is CheckStatus.OK
    said = Refusal(status=403, forwarded=False)
    with proxy.while_("compute", "GET", "/limits", said):
        found = await checked(driver(home, auth_url=proxy.auth_url))
    assert "role `member`" in found["Nova"].way_out
    broken = Refusal(status=500, forwarded=False)
    with proxy.while_("compute", "GET", "/limits", broken):
        found = await checked(driver(home, auth_url=proxy.auth_url))
    assert "when it is at fault, wait for it" in found["Nova"].way_out


async def test_a_clock_that_is_wrong_is_told_by_how_much(
    openstack: OpenStack, home: Project
) -> None:
    for hours, words in ((1, "ahead of"), (-1, "behind")):
        cloud = driver_of(home.credentials(), clock=WrongClock(timedelta(hours=hours)))
        clock = (await checked(cloud))["clock"]
        assert clock.status is CheckStatus.WRONG
        assert words in clock.message
        assert "NTP" in clock.way_out


async def test_a_spec_is_told_by_what_it_stands_for(openstack: OpenStack, home: Project) -> None:
    async with driver(home) as cloud:
        said = await cloud.check_spec("web", Spec(flavor="small", image="debian"))
    assert said.startswith("image debian (")
    assert "flavor small (" in said
    assert "networks private" in said


def test_the_command_tells_it_all_and_no_secret(
    openstack: OpenStack, home: Project, tmp_path: Path
) -> None:
    openstack.set_quota(home, instances=1)
    presets = tmp_path / "presets.d"
    presets.mkdir()
    (presets / "web.yaml").write_text("count: 2\nflavor: [small, smal]\nimage: debian\n")
    (presets / "bad.yaml").write_text("count: 1\nflavor: small\nimage: debain\niaas: osk\n")
    (presets / "out.yaml").write_text("count: 1\nflavor: small\nimage: debian\niaas: locked\n")
    wrong = {**home.credentials(), "password": "Tr0mb0ne"}
    providers = {
        "osk": {"driver": "openstack", "options": home.credentials()},
        "locked": {"driver": "openstack", "options": wrong},
    }
    done = _doctor(tmp_path, providers)
    told = {
        (each["subject"], each["check"], each["status"]): each
        for each in json.loads(done.stdout)["checks"]
    }
    assert done.returncode == 1
    assert ("osk", "credentials", "ok") in told
    assert ("web", "spec", "ok") in told
    assert "with flavor smal:" in told["web", "spec", "wrong"]["message"]
    assert "did you mean 'debian'?" in told["bad", "spec", "wrong"]["message"]
    assert told["bad", "spec", "wrong"]["way_out"] == "correct bad.yaml"
    assert "3 vms more are wanted, and 1 are left" in told["osk", "demand", "wrong"]["message"]
    assert ("locked", "credentials", "wrong") in told
    assert ("out", "spec", "unchecked") in told
    assert "Tr0mb0ne" not in done.stdout + done.stderr
    assert openstack.servers(home) == {}


def _doctor(folder: Path, providers: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """The command, for a suite of which nothing runs."""
    with _port() as port:
        nowhere = f"127.0.0.1:{port}"
    services = dict.fromkeys(("preset", "runtime", "health"), nowhere)
    config = {
        "suite_id": "trial",
        "state_dir": "state",
        "preset": {"sources": [{"name": "local", "options": {"path": "presets.d"}}]},
        "iaas": {"providers": providers},
        "orchestrator": {
            "listen": {"address": nowhere},
            "services": {**services, "iaas": [nowhere]},
        },
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return subprocess.run(
        [VMSHEPHERD, "doctor", "-c", "suite.yaml", "-o", "json"],
        cwd=folder,
        env={**os.environ, "VMSHEPHERD_ADDRESS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def _port() -> Iterator[int]:
    """One on which nobody listens, as soon as the block is left."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def _self_signed(folder: Path) -> Iterator[str]:
    """The URL of a server whose certificate nobody vouches for."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://localhost:{server.server_port}/v3"
        server.shutdown()
