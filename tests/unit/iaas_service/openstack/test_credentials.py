"""What is kept of a login: how long it holds, by the cloud's own times, and no secret to read."""

from __future__ import annotations

from datetime import timedelta

import pytest
from keystoneauth1 import access as told

from iaas_service.drivers.openstack import credentials, diagnosis
from iaas_service.drivers.openstack.credentials import Access


def login(**token: str) -> told.AccessInfo:
    """As Keystone says it, shortened by all that is not of concern."""
    body = {"token": {"methods": ["password"], "user": {"id": "u", "name": "ops"}, **token}}
    return told.AccessInfoV3(body, auth_token="t")


def test_a_token_holds_as_long_as_its_own_two_times_say_whatever_our_clock_does() -> None:
    held = login(issued_at="2001-01-01T00:00:00.000000Z", expires_at="2001-01-01T01:00:00.000000Z")
    assert credentials._lifetime(held) == timedelta(hours=1)


@pytest.mark.parametrize("times", [{}, {"issued_at": "soon", "expires_at": "later"}])
def test_a_token_of_which_no_end_is_told_is_not_kept_for_long(times: dict[str, str]) -> None:
    assert credentials._lifetime(login(**times)) == timedelta(minutes=5)


@pytest.mark.parametrize("times", [{}, {"issued_at": "soon"}])
def test_a_cloud_that_does_not_tell_its_time_is_looked_at_all_the_same(
    times: dict[str, str],
) -> None:
    passport = diagnosis._passport(login(**times))
    assert (passport.user, passport.issued) == ("ops", None)


def test_a_token_is_in_no_text_that_is_made_of_a_login() -> None:
    access = Access(
        token="gAAAAAB-secret", lifetime=timedelta(1), project_id="p", region="r", endpoints={}
    )
    assert "secret" not in f"{access} {access!r}"


@pytest.mark.parametrize("verify", [True, False])
def test_certificates_are_judged_unless_somebody_says_not_to(*, verify: bool) -> None:
    context = credentials.Trust(verify=verify, cert=None).context()
    assert context.check_hostname is verify
    assert bool(context.verify_mode) is verify
