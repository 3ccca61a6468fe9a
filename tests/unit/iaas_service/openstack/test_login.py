"""What a refused login means: Keystone's own words are told apart from those of whoever else
answers at its address.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
from keystoneauth1 import exceptions as refusals

from iaas_service.drivers.openstack.credentials import Access
from iaas_service.drivers.openstack.login import Login
from vmshepherd_kit.errors import Denied, Refused, ShepherdError, Unauthenticated, Unavailable
from vmshepherd_kit.testing import FakeClock

Ask = Callable[[int, bytes, str], Any]
KEYSTONE = "http://127.0.0.1:5000/v3/auth/tokens"
# As Keystone of Zed said them.
NO_CREDENTIAL = "Could not find Application Credential: 3ac16d."
NO_TOKEN = "Could not recognize Fernet token"
ENDED = "Failed to validate token"
NO_SUCH_PATH = "(http://127.0.0.1:5000/v9/auth/tokens): The resource could not be found."


def keystones(status: int, message: str) -> bytes:
    error = {"code": status, "message": message, "title": "Not Found"}
    return json.dumps({"error": error}).encode()


@pytest.fixture
async def refused() -> AsyncIterator[Ask]:
    """The error of a login that is answered like this."""
    numbers = count()
    with ThreadPoolExecutor(1) as threads:

        async def ask(status: int, body: bytes, kind: str = "application/json") -> ShepherdError:
            answer = requests.Response()
            answer.status_code, answer._content = status, body
            answer.headers["Content-Type"] = kind
            answer.headers["x-openstack-request-id"] = f"req-{next(numbers)}"

            def log_in() -> None:
                raise refusals.from_response(answer, "POST", KEYSTONE)

            credentials = cast("Any", SimpleNamespace(login=log_in))
            login = Login(credentials, where="osk", clock=FakeClock(), threads=threads)
            with pytest.raises(ShepherdError) as refusal:
                await login.access()
            return refusal.value

        yield ask


@pytest.mark.parametrize("said", [NO_CREDENTIAL, NO_TOKEN, ENDED])
async def test_credentials_that_keystone_does_not_find_are_named_as_it_names_them(
    refused: Ask, said: str
) -> None:
    error = await refused(404, keystones(404, said), "application/json")
    assert isinstance(error, Unauthenticated)
    assert said in error.message
    assert "identity service" not in error.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (keystones(404, NO_SUCH_PATH), "application/json"),
        (b"<html>Not Found</html>", "text/html"),
        (b"{}", "application/json"),
        (b"[1]", "application/json"),
        (b'{"error": "no such thing"}', "application/json"),
        (b'{"error": {"message": 5}}', "application/json"),
        (b"not even that", "application/json"),
    ],
)
async def test_an_address_without_an_identity_service_is_told_as_such(
    refused: Ask, body: bytes, kind: str
) -> None:
    error = await refused(404, body, kind)
    assert isinstance(error, Refused)
    assert "there is no identity service at the auth_url of osk" in error.message


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Unauthenticated), (401, Unauthenticated), (403, Denied)]
)
async def test_a_refusal_is_for_a_person_to_mend(
    refused: Ask, status: int, kind: type[ShepherdError]
) -> None:
    assert isinstance(await refused(status, keystones(status, "no"), "application/json"), kind)


async def test_the_same_refusal_is_told_in_the_same_words_each_time(refused: Ask) -> None:
    first, second = [await refused(401, keystones(401, "no"), "application/json") for _ in "ab"]
    assert first.message == second.message
    assert "Request-ID" not in first.message


async def test_a_keystone_that_fails_is_tried_again(refused: Ask) -> None:
    assert isinstance(await refused(500, b"", "text/plain"), Unavailable)


@pytest.mark.parametrize("kind", [Unauthenticated, Denied, Refused])
async def test_what_a_person_must_mend_is_asked_again_every_ten_seconds(
    kind: type[ShepherdError],
) -> None:
    asked, clock = [], FakeClock()

    def log_in() -> None:
        asked.append(1)
        raise kind("they are of project one, not of two")

    with ThreadPoolExecutor(1) as threads:
        credentials = cast("Any", SimpleNamespace(login=log_in))
        login = Login(credentials, where="osk", clock=clock, threads=threads)
        for passed, times in ((0, 1), (9, 1), (1, 2)):
            await clock.advance(timedelta(seconds=passed))
            with pytest.raises(kind, match="they are of project one"):
                await login.access()
            assert len(asked) == times


async def test_a_refusal_that_nobody_waits_for_any_more_is_no_alarm() -> None:
    alarms: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: alarms.append(told))
    gone = threading.Event()

    def log_in() -> None:
        gone.wait(10)
        raise refusals.ConnectFailure("away")

    with ThreadPoolExecutor(1) as threads:
        credentials = cast("Any", SimpleNamespace(login=log_in))
        login = Login(credentials, where="osk", clock=FakeClock(), threads=threads)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await login.access()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        gone.set()
        await asyncio.wait(running)
        del running
    gc.collect()
    assert not alarms


async def test_a_token_tells_how_far_the_clock_of_the_cloud_is_ahead() -> None:
    clock, hour = FakeClock(), timedelta(hours=1)
    given = Access(
        token="t",
        lifetime=hour,
        issued=clock.wall() - hour,
        project_id="p",
        region="r",
        endpoints={},
    )
    with ThreadPoolExecutor(1) as threads:
        credentials = cast("Any", SimpleNamespace(login=lambda: given))
        login = Login(credentials, where="osk", clock=clock, threads=threads)
        await login.access()
    assert login.ahead == -hour
