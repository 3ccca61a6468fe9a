"""The check `http` against small real servers on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from health_service.domain import Reason, Result, Verdict
from health_service.drivers.http import HttpCheck
from health_service.testing import ABSENT, HEALTHY, HUNG, accepting, aims, probed, tools
from vmshepherd_kit.errors import BadRequest

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Made for these tests alone; it serves vm.test and 127.1.0.1.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUF43blRNeMMgPQQrosMdq0j0HtwowCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHdm0udGVzdDAgFw0yNjExMjIxNjI0MjJaGA8yMTI2MTAyOTE2
MjQyMlowEjEQMA4GA1UEAwwHdm0udGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABP+1MA64k8D+OzywX4NVIzImXRXgXcLB9MQSCv8LS7pDvNKi+fBPSsOZ1swq
T0hY97s0TtjZrKIEz8NotwFC6PCjbTBrMB0GA1UdDgQWBBSA+GeOfFWFot8FsgZv
HWSpo3FFVDAfBgNVHSMEGDAWgBSA+GeOfFWFot8FsgZvHWSpo3FFVDAPBgNVHRMB
Af8EBTADAQH/MBgGA1UdEQQRMA+CB3ZtLnRlc3SHBH8BAAEwCgYIKoZIzj0EAwID
SQAwRgIhAL54A4Uuf2mt2X7eeGWVOfniky1zdtvSlkhR9PVftcmyAiEAjmdrElUs
maQ+Swb4RDa7y0SHojkCKW2jkx/Lu1PSTCE=
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgY8c+DsQsIOGXlOfm
RYnH6OXvDVgDFrrKM3eFdO9+DQihRANCAAT/tTAOuJPA/js8sF+DVSMyJl0V4F3C
wfTEEgr/C0u6Q7zSovnwT0rDmdbMKk9IWPe7NE7Y2ayiBM/DaLcBQujw
-----END PRIVATE KEY-----
"""


@asynccontextmanager
async def serving(
    handler: Handler, address: str = HEALTHY, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await handler(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, address, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
        if tasks:
            await asyncio.wait(tasks, timeout=5)
    finally:
        server.close()


async def asked(port: int, address: str = HEALTHY, files: Path = Path(), **options: Any) -> Result:
    check = HttpCheck(tools(files=files))
    return (await probed(check, {"port": port, **options}, aims(address)))["vm-0"]


async def answered(answer: bytes, **options: Any) -> Result:
    async with accepting(HEALTHY, says=answer) as port:
        return await asked(port, **options)


async def test_another_status_is_told_with_the_one_that_was_expected() -> None:
    result = await answered(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", path="/health?x=1")
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.STATUS)
    assert result.message.startswith(f"GET http://{HEALTHY}:")
    assert result.message.endswith("/health?x=1: 500, expected 200")


async def test_a_redirect_is_not_followed_but_judged_by_its_status() -> None:
    visited: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append(await reader.readline())
        writer.write(OK)
        await writer.drain()
        await reader.read()

    async with serving(elsewhere, HUNG) as there:
        redirect = f"HTTP/1.1 302 Found\r\nLocation: http://{HUNG}:{there}/\r\n\r\n".encode()
        assert (await answered(redirect)).reason == Reason.STATUS
        assert (await answered(redirect, check_status=[200, 302])).verdict is Verdict.HEALTHY
    assert visited == []


async def test_the_request_is_what_the_options_say() -> None:
    requests: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await writer.drain()
        await reader.read()

    async with serving(record) as port:
        headers = {"X-Probe": "1", "User-Agent": "mine"}
        await asked(port, method="POST", path="/p?q=%20", headers=headers, host="vm.test")
        await asked(port)
    line, *fields = requests[0].decode().split("\r\n")
    assert line == "POST /p?q=%20 HTTP/1.1"
    assert {"Host: vm.test", "X-Probe: 1", "User-Agent: mine", "Content-Length: 0"} <= set(fields)
    assert sum(field.startswith("User-Agent") for field in fields) == 1
    assert f"Host: {HEALTHY}:{port}" in requests[1].decode()


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("hello", Verdict.HEALTHY),
        (["he", "llo"], Verdict.HEALTHY),
        ("bye", Verdict.UNHEALTHY),
        (["hello", "bye"], Verdict.UNHEALTHY),
    ],
)
async def test_all_texts_must_be_in_the_body(body: str | list[str], verdict: Verdict) -> None:
    result = await answered(OK, body=body)
    assert result.verdict is verdict
    assert result.reason == (Reason.OK if verdict is Verdict.HEALTHY else Reason.BODY)


async def test_a_text_is_found_across_chunks_and_before_the_body_ends() -> None:
    async def chunked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n")
        await reader.read()

    async with serving(chunked) as port:
        assert (await asked(port, body="hello")).verdict is Verdict.HEALTHY


async def test_an_endless_body_is_cut() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(pour) as port:
        result = await asked(port, body="needle", read_timeout=30)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.BODY)
    assert "64 KiB" in result.message


async def test_endless_headers_are_cut() -> None:
    result = await answered(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000, read_timeout=30)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.PROTOCOL)


async def test_endless_interim_answers_are_cut() -> None:
    result = await answered(b"HTTP/1.1 102 Processing\r\n\r\n" * 50_000, read_timeout=30)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.PROTOCOL)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9\r\n", b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"]
)
async def test_what_is_no_http_is_unhealthy_and_is_not_told_at_length(answer: bytes) -> None:
    result = await answered(answer + b"z" * 70_000)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.PROTOCOL)
    assert len(result.message) < 400


async def test_a_drip_ends_with_the_time_for_the_whole_answer() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as port:
        result = await asked(port, read_timeout=0.2)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.TIMEOUT)
    assert "connected" in result.message
    assert not result.silent


async def test_hanging_up_without_an_answer_is_unhealthy() -> None:
    result = await answered(b"")
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.RESET)


async def test_the_connection_is_closed_by_a_reset() -> None:
    """A plain close fills connection tables: see `connecting`."""
    ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    class Peer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(OK)

        def connection_lost(self, exc: Exception | None) -> None:
            ended.set_result(exc)

    server = await asyncio.get_running_loop().create_server(Peer, HEALTHY, 0)
    assert (await asked(server.sockets[0].getsockname()[1])).verdict is Verdict.HEALTHY
    assert isinstance(await asyncio.wait_for(ended, 10), ConnectionResetError)
    server.close()


async def test_an_ipv6_address_is_probed_without_brackets_and_told_with_them() -> None:
    async with accepting(HEALTHY, says=OK) as port:
        result = await asked(port, f"::ffff:{HEALTHY}")
    assert result.verdict is Verdict.HEALTHY
    assert result.message.startswith("GET http://[::ffff:")


async def test_headers_are_not_told() -> None:
    result = await answered(b"HTTP/1.1 401 No\r\n\r\n", headers={"Authorization": "Bearer hunter2"})
    assert "hunter2" not in repr(result)


@pytest.fixture
def pki(tmp_path: Path) -> ssl.SSLContext:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    return context


async def secure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    await writer.drain()
    await reader.read()


@pytest.mark.parametrize(
    "tls",
    [
        {"verify": False},
        {"ca_file": "ca.pem"},
        {"ca_file": "ca.pem", "server_name": "vm.test"},
    ],
)
async def test_tls_is_spoken(pki: ssl.SSLContext, tmp_path: Path, tls: dict[str, Any]) -> None:
    async with serving(secure, context=pki) as port:
        result = await asked(port, files=tmp_path, tls=tls, body="hello")
    assert result.verdict is Verdict.HEALTHY, result
    assert result.message.startswith("GET https://")


@pytest.mark.parametrize(
    "tls", [{}, {"ca_file": "ca.pem", "server_name": "other.test"}, {"verify": True}]
)
async def test_a_certificate_that_is_not_trusted_is_unhealthy(
    pki: ssl.SSLContext, tmp_path: Path, tls: dict[str, Any]
) -> None:
    async with serving(secure, context=pki) as port:
        result = await asked(port, files=tmp_path, tls=tls)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.TLS)


async def test_a_vm_that_speaks_no_tls_is_unhealthy() -> None:
    result = await answered(b"HTTP/1.1 400 Bad\r\n\r\n", scheme="https")
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.TLS)


async def test_a_handshake_that_hangs_ends_with_the_time() -> None:
    async with accepting(HUNG) as port:
        result = await asked(port, HUNG, scheme="https", read_timeout=0.1)
    assert (result.verdict, result.reason) == (Verdict.UNHEALTHY, Reason.TIMEOUT)


@pytest.mark.parametrize("name", ["../ca.pem", "/etc/hostname", "absent.pem", "key.txt", "."])
async def test_a_ca_file_is_certificates_beneath_the_configuration_or_refused(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "key.txt").write_text("a secret, and no certificate")
    with pytest.raises(BadRequest) as refused:
        await asked(9, files=tmp_path / "here", tls={"ca_file": name})
    assert [violation.field for violation in refused.value.violations] == [
        "check.options.tls.ca_file"
    ]
    assert "a secret" not in str(refused.value)


async def test_a_ca_file_that_has_changed_is_read_again(
    pki: ssl.SSLContext, tmp_path: Path
) -> None:
    check = HttpCheck(tools(files=tmp_path))
    async with serving(secure, context=pki) as port:
        options = {"port": port, "tls": {"ca_file": "ca.pem"}}
        assert (await probed(check, options, aims(HEALTHY)))["vm-0"].verdict is Verdict.HEALTHY
        (tmp_path / "ca.pem").write_text("broken")
        with pytest.raises(BadRequest):
            await probed(check, options, aims(HEALTHY))


def test_it_does_the_same_on_uvloop() -> None:
    async def scenario() -> dict[str, str]:
        async with accepting(HEALTHY, says=OK) as port, accepting(HUNG, port):
            check = HttpCheck(tools())
            options = {"port": port, "read_timeout": 0.2, "body": "hello"}
            results = await probed(check, options, aims(HEALTHY, HUNG, ABSENT))
            return {target: result.reason for target, result in results.items()}

    assert uvloop.run(scenario()) == {
        "vm-0": Reason.OK,
        "vm-1": Reason.TIMEOUT,
        "vm-2": Reason.REFUSED,
    }
