"""Who may use a store in ZooKeeper, over which connections, and what a start is refused for."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from runtime_service.drivers.zookeeper import ZookeeperOptions
from tests.support.zookeeper import Ensemble, ensemble_of_this_run, missing
from tests.support.zookeeper_stores import lock, opened, session
from vmshepherd_kit import settings
from vmshepherd_kit.errors import Refused, Unavailable

pytestmark = [pytest.mark.xdist_group("zookeeper"), pytest.mark.e2e]

LONG = timedelta(minutes=10)
SECRET = "s3cret-of-the-shepherd"
JAAS = """
Server {
  org.apache.zookeeper.server.auth.DigestLoginModule required user_shepherd="%s";
};
"""


@pytest.fixture
def node(pytestconfig: pytest.Config) -> Ensemble:
    return ensemble_of_this_run(pytestconfig, nodes=1)


@pytest.fixture
def sasl_node(tmp_path: Path) -> Iterator[Ensemble]:
    if lack := missing():
        pytest.skip(lack)
    jaas = tmp_path / "jaas.conf"
    jaas.write_text(JAAS % SECRET)
    provider = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
    with Ensemble(
        tmp_path / "nodes",
        settings={"authProvider.1": provider},
        jvm=[f"-Djava.security.auth.login.config={jaas}"],
    ) as ensemble:
        yield ensemble


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """An authority, and a key and certificate of 127.0.0.1 by it."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is missing: `apt-get install -y openssl`")
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=node -keyout node.key -out node.csr",
        "x509 -req -in node.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names -out node.crt",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    both = (folder / "node.crt").read_text() + (folder / "node.key").read_text()
    (folder / "node.pem").write_text(both)
    return folder


@pytest.fixture
def tls_node(tmp_path: Path, keys: Path) -> Iterator[Ensemble]:
    if lack := missing():
        pytest.skip(lack)
    with Ensemble(
        tmp_path / "nodes",
        settings={
            "secureClientPort": "{secure_port}",
            "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "ssl.keyStore.location": str(keys / "node.pem"),
            "ssl.keyStore.type": "PEM",
            "ssl.trustStore.location": str(keys / "ca.pem"),
            "ssl.trustStore.type": "PEM",
        },
    ) as ensemble:
        yield ensemble


async def test_nodes_are_for_the_credentials_that_made_them(node: Ensemble, tmp_path: Path) -> None:
    room = node.room()
    (tmp_path / "auth").write_text(f"shepherd:{SECRET}\n")
    ours: dict[str, Any] = {"addauth": {"scheme": "digest", "auth": f"shepherd:{SECRET}"}}
    async with opened(node.servers, room, **ours) as store:
        assert await lock(store, await session(store, ttl=LONG))
    from_file: dict[str, Any] = {"addauth": [{"auth_file": "auth"}]}
    async with opened(node.servers, room, base_dir=tmp_path, **from_file) as store:
        assert (await store.list_locks(after="", limit=9)).items
    strangers: tuple[dict[str, Any], ...] = ({}, {"addauth": {"auth": "shepherd:wrong"}})
    for others in strangers:
        with pytest.raises(Refused, match="addauth") as refused:
            async with opened(node.servers, room, **others):
                pass
        assert refused.value.reason == "STORE_DENIED"
    stranger = KazooClient(node.servers)
    stranger.start()
    try:
        with pytest.raises(NoAuthError):
            stranger.get(f"{room}/store/locks/a")
        with pytest.raises(NoAuthError):
            stranger.delete(f"{room}/store/locks/a")
    finally:
        stranger.stop()
        stranger.close()


async def test_sasl_is_spoken_and_a_wrong_password_refuses_the_start(
    sasl_node: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOOKEEPER_PASSWORD", SECRET)
    room, ours = sasl_node.room(), {"username": "shepherd", "password_env": "ZOOKEEPER_PASSWORD"}
    async with opened(sasl_node.servers, room, sasl=ours) as store:
        assert await lock(store, await session(store, ttl=LONG))
        sasl_node.restart(1)
        assert (await store.list_locks(after="", limit=9)).items
    with pytest.raises(Refused, match="credentials") as refused:
        async with opened(sasl_node.servers, room, sasl={**ours, "username": "wolf"}):
            pass
    assert refused.value.reason == "STORE_DENIED"
    with pytest.raises(Refused) as refused:
        async with opened(sasl_node.servers, room):
            pass
    assert refused.value.reason == "STORE_DENIED"


# kazoo leaves a socket to the garbage collector when its peer's certificate is not trusted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls_is_spoken_with_nobody_but_who_has_the_authoritys_certificate(
    tls_node: Ensemble, keys: Path, tmp_path: Path
) -> None:
    room = tls_node.room()
    ours = {"ca": "ca.pem", "cert": "node.crt", "key": "node.key"}
    async with opened(tls_node.secure_servers, room, base_dir=keys, tls=ours) as store:
        assert await lock(store, await session(store, ttl=LONG))
    # Another authority's: the system's.
    client = {"cert": "node.crt", "key": "node.key"}
    async with opened(
        tls_node.secure_servers, room, base_dir=keys, tls=client, timeout="3s"
    ) as store:
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await session(store)


async def test_a_missing_secret_refuses_the_start_and_says_where_it_was_sought(
    node: Ensemble, tmp_path: Path
) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"addauth": {"auth_file": "nowhere"}}, str(tmp_path / "nowhere")),
        ({"sasl": {"username": "u", "password_env": "NO_SUCH_THING"}}, "NO_SUCH_THING"),
        ({"tls": {"ca": "nowhere.pem"}}, str(tmp_path / "nowhere.pem")),
    )
    for more, named in cases:
        with pytest.raises(Refused) as refused:
            async with opened(node.servers, node.room(), base_dir=tmp_path, **more):
                pass
        assert refused.value.reason == "STORE_UNUSABLE"
        assert named in refused.value.message


async def test_nodes_of_a_newer_version_refuse_the_start(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as store:
        client = store._connection._client._zookeeper
        client.set(f"{room}/store", json.dumps({"format": 2}).encode())
    with pytest.raises(Refused) as refused:
        async with opened(node.servers, room):
            pass
    assert refused.value.reason == "STORE_TOO_NEW"


async def test_a_record_of_another_program_is_told_and_not_taken_for_nothing(
    node: Ensemble,
) -> None:
    room = node.room()
    async with opened(node.servers, room) as store:
        store._connection._client._zookeeper.create(f"{room}/store/locks/a", b"not ours")
        with pytest.raises(Unavailable, match="working_path") as damaged:
            await lock(store, await session(store, ttl=LONG))
        assert damaged.value.reason == "STORE_DAMAGED"


async def test_a_working_path_may_be_deep_and_what_lies_beside_is_left_alone(
    node: Ensemble,
) -> None:
    room = node.room()
    async with opened(node.servers, f"{room}/a/b") as store:
        client = store._connection._client._zookeeper
        client.create(f"{room}/a/b/preset-of-1.6", b"{}")
        assert await lock(store, await session(store, ttl=LONG))
    async with opened(node.servers, f"{room}/a/b") as store:
        client = store._connection._client._zookeeper
        assert set(client.get_children(f"{room}/a/b")) == {"preset-of-1.6", "store"}


async def test_secrets_are_shown_nowhere(
    node: Ensemble, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    raw = {"servers": node.servers, "addauth": {"auth": f"shepherd:{SECRET}"}}
    options = settings.parse(raw, ZookeeperOptions)
    assert SECRET not in f"{options!r} {options} {options.model_dump()!r}"
    room = node.room()
    async with opened(node.servers, room, addauth=raw["addauth"]) as store:
        await session(store, ttl=LONG)
    with pytest.raises(Refused) as refused:
        async with opened(node.servers, room, addauth={"auth": f"wolf:{SECRET}"}):
            pass
    assert SECRET not in f"{refused.value!r} {refused.value.facts}"
    out, err = capfd.readouterr()
    assert SECRET not in caplog.text + out + err
