from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from iaas_service.drivers.openstack.credentials import Credentials
from iaas_service.drivers.openstack.endpoints import versioned
from iaas_service.drivers.openstack.options import OpenstackOptions
from iaas_service.drivers.openstack.places import Place, chosen
from vmshepherd_kit import settings
from vmshepherd_kit.errors import BadRequest, Refused

SECRET = "hunter2"
OF_1_6 = {
    "auth_url": "http://127.0.0.1:5000/v3",
    "username": "shepherd",
    "password": SECRET,
    "project_name": "web",
    "user_domain_name": "Default",
    "project_domain_name": "Default",
    "http_timeout": 30,
    "image_owner_ids": ["0123"],
    "shutdown_grace_period": 600,
}
CLOUDS = """
clouds:
  here:
    region_name: North
    auth: {auth_url: "http://127.0.0.1:5000/v3", username: u, password: hunter2, project_name: p,
           user_domain_name: Default, project_domain_name: Default}
"""


def options(**raw: Any) -> OpenstackOptions:
    return settings.parse(raw, OpenstackOptions, where="options")


def refused(**raw: Any) -> str:
    with pytest.raises(settings.Invalid) as refusal:
        options(**raw)
    return refusal.value.message


def plugin(given: OpenstackOptions, base: Path = Path("/")) -> Any:
    """What would ask for a token."""
    return Credentials(given, given.places[0], base).region().get_auth()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in [key for key in os.environ if key.startswith("OS_")]:
        monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)


def test_the_keys_of_the_predecessor_are_understood() -> None:
    given = options(**OF_1_6)
    assert given.http_timeout.total_seconds() == 30
    assert given.places == (Place(project="web", project_domain="Default"),)
    assert plugin(given).auth_url == OF_1_6["auth_url"]


def test_a_key_that_is_misspelt_is_refused_with_the_nearest_known() -> None:
    assert "did you mean 'auth_url'?" in refused(auth_ulr="http://x")


def test_no_secret_is_ever_shown() -> None:
    given = options(**OF_1_6)
    assert SECRET not in f"{given!r} {given} {given.model_dump()}"
    assert SECRET not in refused(**OF_1_6, token={"x": SECRET})


def test_a_password_is_read_from_its_file_at_each_login(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    raw = {key: value for key, value in OF_1_6.items() if key != "password"}
    given = options(**raw, password_file="password")
    credentials = Credentials(given, given.places[0], tmp_path)
    assert credentials._secret("password") == "first"
    file.write_text("second\n")
    assert credentials._secret("password") == "second"


def test_a_file_of_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    raw = {key: value for key, value in OF_1_6.items() if key != "password"}
    given = options(**raw, password_file="nowhere")
    with pytest.raises(Refused, match=r"nowhere, which password_file names") as refusal:
        Credentials(given, given.places[0], tmp_path).check()
    assert refusal.value.reason == "CLOUD_UNUSABLE"


def test_a_cloud_of_clouds_yaml_is_found_in_the_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text(CLOUDS)
    given = options(cloud="here", clouds_file="clouds.yaml")
    region = Credentials(given, given.places[0], tmp_path).region()
    assert region.get_region_name() == "North"


def test_a_cloud_that_no_file_has_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text(CLOUDS)
    given = options(cloud="there", clouds_file="clouds.yaml")
    with pytest.raises(Refused, match="there"):
        Credentials(given, given.places[0], tmp_path).check()


def test_the_environment_says_all_when_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("username", "password", "project_name", "user_domain_name", "project_domain_name"):
        monkeypatch.setenv(f"OS_{key.upper()}", str(OF_1_6[key]))
    monkeypatch.setenv("OS_AUTH_URL", "http://127.0.0.1:5001/v3")
    assert plugin(options()).auth_url == "http://127.0.0.1:5001/v3"


def test_a_file_of_clouds_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text("clouds: {here: [}")
    given = options(cloud="here", clouds_file="clouds.yaml")
    with pytest.raises(Refused) as refusal:
        Credentials(given, given.places[0], tmp_path).check()
    assert refusal.value.reason == "CLOUD_UNUSABLE"


def test_with_nothing_at_all_the_start_is_refused() -> None:
    with pytest.raises(Refused) as refusal:
        Credentials(options(), Place(), Path("/")).check()
    assert refusal.value.reason == "CLOUD_UNUSABLE"


def test_application_credentials_and_tokens_need_no_user() -> None:
    url = OF_1_6["auth_url"]
    of_application = options(
        auth_url=url, application_credential_id="1f", application_credential_secret=SECRET
    )
    assert type(plugin(of_application)).__name__ == "ApplicationCredential"
    assert type(plugin(options(auth_url=url, token=SECRET, project_name="web"))).__name__ == "Token"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"cloud": "a", "auth_url": "http://x"}, "cloud and auth_url are both set"),
        ({"clouds_file": "x"}, "cloud must name one"),
        ({"username": "u"}, "auth_url must say for which cloud"),
        ({"auth_url": "http://x"}, "credentials are missing"),
        ({"auth_url": "http://x", "username": "u"}, "project_name or projects"),
        ({**OF_1_6, "password_file": "x"}, "password and password_file are both set"),
        ({"auth_url": "ftp://x", "username": "u"}, "auth_url"),
        (
            {
                "auth_url": "http://x",
                "application_credential_id": "1f",
                "application_credential_secret": "s",
                "projects": ["a"],
            },
            "belongs to one project alone",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(raw: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(**raw)


def test_a_preset_chooses_among_the_places_that_are_listed() -> None:
    given = options(**OF_1_6, projects=["web", "search"], regions="North, South")
    assert [(p.project, p.region) for p in given.places] == [
        ("web", "North"),
        ("web", "South"),
        ("search", "North"),
        ("search", "South"),
    ]
    assert chosen(given.places, {}).project == "web"
    assert chosen(given.places, {"project": "search", "region": "South"}) == given.places[3]
    assert chosen(given.places, {"project_name": "search"}) == given.places[2]


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"region": "Nowhere"}, "spec.options.region"),
        ({"project": "accounting"}, "spec.options.project"),
        ({"project_domain_name": "Other"}, "spec.options.project_domain_name"),
    ],
)
def test_a_place_that_is_not_listed_is_refused_by_name(wish: dict[str, str], field: str) -> None:
    places = options(**OF_1_6, regions="North").places
    with pytest.raises(BadRequest) as refusal:
        chosen(places, wish)
    assert [violation.field for violation in refusal.value.violations] == [field]


@pytest.mark.parametrize(
    ("service", "told", "asked"),
    [
        ("compute", "http://nova:8774/v2.1/", "http://nova:8774/v2.1"),
        ("compute", "http://nova:8774", "http://nova:8774/v2.1"),
        ("image", "https://api/image", "https://api/image/v2"),
        ("network", "http://neutron:9696/", "http://neutron:9696/v2.0"),
        ("volume", "https://api/volume/v3/0123abcd", "https://api/volume/v3/0123abcd"),
        ("compute", "http://v2.example.org/compute", "http://v2.example.org/compute/v2.1"),
        ("placement", "https://api/placement/", "https://api/placement"),
    ],
)
def test_endpoints_are_asked_in_a_version_however_the_catalogue_names_them(
    service: str, told: str, asked: str
) -> None:
    assert versioned(service, told) == asked
