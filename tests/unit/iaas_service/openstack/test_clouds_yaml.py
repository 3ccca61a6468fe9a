"""Credentials that are not whole, each told before anything is sent, and none of them shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iaas_service.drivers.openstack.credentials import Credentials
from iaas_service.drivers.openstack.options import OpenstackOptions
from vmshepherd_kit import settings
from vmshepherd_kit.errors import Refused

URL = "http://127.0.0.1:1/v3"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the machine's own variables, and no clouds.yaml but the test's."""
    for name in ("AUTH_URL", "USERNAME", "PASSWORD", "PROJECT_NAME", "CLOUD"):
        monkeypatch.delenv(f"OS_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def why(folder: Path, **options: Any) -> str:
    parsed = settings.parse(options, OpenstackOptions)
    with pytest.raises(Refused) as refused:
        Credentials(parsed, parsed.places[0], folder).check()
    return refused.value.message


def of_file(folder: Path, text: str, cloud: str = "north") -> str:
    (folder / "clouds.yaml").write_text(text)
    return why(folder, cloud=cloud, clouds_file="clouds.yaml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"there is no file {tmp_path / 'none.yaml'}" in why(
        tmp_path, cloud="north", clouds_file="none.yaml"
    )
    assert "clouds.yaml" in why(tmp_path, cloud="no-such-cloud-anywhere")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").mkdir()
    message = why(tmp_path, cloud="north", clouds_file="clouds.yaml")
    assert f"{tmp_path / 'clouds.yaml'} cannot be read: Is a directory" in message


def test_what_is_no_yaml_is_named_with_its_line_and_not_quoted(tmp_path: Path) -> None:
    message = of_file(tmp_path, "clouds:\n  north: {auth: {password: Tr0mb0ne\n")
    assert "clouds.yaml is no YAML at line" in message
    assert "Tr0mb0ne" not in message


def test_of_a_cloud_that_is_not_in_it_those_are_told_that_are(tmp_path: Path) -> None:
    text = f"clouds: {{south: {{auth: {{auth_url: '{URL}'}}}}, west: {{}}}}\n"
    assert "has no cloud 'north'; it has: south, west" in of_file(tmp_path, text)
    assert "it has: none" in of_file(tmp_path, "")


def test_an_application_credential_without_its_kind_is_told_which_it_needs(tmp_path: Path) -> None:
    auth = f"{{auth_url: '{URL}', application_credential_id: x, application_credential_secret: y}}"
    message = of_file(tmp_path, f"clouds: {{north: {{auth: {auth}}}}}\n")
    assert "needs auth_type: v3applicationcredential" in message


def test_what_is_missing_of_a_user_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_AUTH_URL", URL)
    assert "missing: username (OS_USERNAME) and password (OS_PASSWORD)" in why(tmp_path)
    monkeypatch.setenv("OS_USERNAME", "shepherd")
    assert "missing: password (OS_PASSWORD)" in why(tmp_path)


def test_a_file_of_certificates_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    written = {"auth_url": URL, "username": "u", "password": "p", "project_name": "w"}
    parsed = settings.parse({**written, "ca_file": "ca.pem"}, OpenstackOptions)
    trust = Credentials(parsed, parsed.places[0], tmp_path).check()
    with pytest.raises(Refused, match=r"ca\.pem"):
        trust.context()
