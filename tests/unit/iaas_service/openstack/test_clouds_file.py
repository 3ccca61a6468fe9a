"""A clouds.yaml of the wrong shape: whoever wrote it is told which part of which file is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iaas_service.drivers.openstack.credentials import Credentials
from iaas_service.drivers.openstack.options import OpenstackOptions
from vmshepherd_kit import settings
from vmshepherd_kit.errors import Refused

URL = "http://127.0.0.1:1/v3"
USER = "username: u, password: Tr0mb0ne, project_name: web, user_domain_name: Default"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AUTH_URL", "USERNAME", "PASSWORD", "PROJECT_NAME", "CLOUD"):
        monkeypatch.delenv(f"OS_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def why(folder: Path, **options: Any) -> str:
    parsed = settings.parse(options, OpenstackOptions)
    with pytest.raises(Refused) as refused:
        Credentials(parsed, parsed.places[0], folder).check()
    assert "Tr0mb0ne" not in refused.value.message
    return refused.value.message


def of_file(folder: Path, text: str | bytes) -> str:
    path = folder / "clouds.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return why(folder, cloud="north", clouds_file="clouds.yaml")


@pytest.mark.parametrize("text", ["clouds: [north, south]\n", "clouds:\n", "- clouds\n", "north\n"])
def test_a_file_without_a_table_of_clouds_is_told_what_it_lacks(tmp_path: Path, text: str) -> None:
    assert "clouds.yaml has no table `clouds`" in of_file(tmp_path, text)


@pytest.mark.parametrize("cloud", ["", "hello", "[auth]", "7"])
def test_a_cloud_that_is_no_table_is_named(tmp_path: Path, cloud: str) -> None:
    message = of_file(tmp_path, f"clouds:\n  north: {cloud}\n")
    assert "clouds.yaml: cloud 'north' must be a table of keys, with `auth` among them" in message


@pytest.mark.parametrize("auth", ["", "Tr0mb0ne", "[u, Tr0mb0ne]"])
def test_an_auth_that_is_no_table_is_named(tmp_path: Path, auth: str) -> None:
    message = of_file(tmp_path, f"clouds:\n  north:\n    auth: {auth}\n")
    assert "clouds.yaml: `auth` of cloud 'north' must be a table of keys" in message


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    message = of_file(tmp_path, "clouds: {north: {}}".encode("utf-16"))
    assert f"{tmp_path / 'clouds.yaml'} is no text in UTF-8" in message


@pytest.mark.parametrize("url", ["keystone.example.org/v3", "ftp://keystone/v3"])
def test_an_auth_url_that_is_none_is_told_how_one_looks(tmp_path: Path, url: str) -> None:
    message = of_file(tmp_path, f"clouds: {{north: {{auth: {{auth_url: {url}, {USER}}}}}}}\n")
    assert "auth_url must begin with http:// or https://" in message
    assert url in message


@pytest.mark.parametrize("end", ["", "/"])
def test_an_auth_url_of_the_former_keystone_is_refused_and_not_tried_for_ever(
    tmp_path: Path, end: str
) -> None:
    url = f"https://keystone.example.org/v2.0{end}"
    message = of_file(tmp_path, f"clouds: {{north: {{auth: {{auth_url: '{url}', {USER}}}}}}}\n")
    assert "Keystone v3 is needed" in message
    assert url in message


def test_an_auth_url_that_is_no_text_is_told_how_one_looks(tmp_path: Path) -> None:
    message = of_file(tmp_path, f"clouds: {{north: {{auth: {{auth_url: 5000, {USER}}}}}}}\n")
    assert "auth_url of cloud 'north' must begin with http:// or https://" in message


def test_an_auth_url_of_the_environment_is_held_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USERNAME", "PASSWORD", "PROJECT_NAME"):
        monkeypatch.setenv(f"OS_{name}", "Tr0mb0ne")
    monkeypatch.setenv("OS_AUTH_URL", "keystone.example.org/v3")
    assert "auth_url must begin with http:// or https://" in why(tmp_path)


def test_a_kind_of_login_that_asks_no_keystone_is_refused(tmp_path: Path) -> None:
    auth = f"{{endpoint: '{URL}', token: Tr0mb0ne}}"
    message = of_file(tmp_path, f"clouds: {{north: {{auth_type: admin_token, auth: {auth}}}}}\n")
    assert "auth_type 'admin_token' logs in at no Keystone" in message


def test_a_key_of_auth_that_nobody_knows_is_named(tmp_path: Path) -> None:
    auth = f"auth_url: '{URL}', {USER}, pasword: Tr0mb0ne"
    message = of_file(tmp_path, f"clouds: {{north: {{auth: {{{auth}}}}}}}\n")
    assert "its auth_type does not know 'pasword' beneath auth" in message
