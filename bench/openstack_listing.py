"""`listing`: the driver reads many servers page by page, against the bare cost of the same pages.

Servers without networks, which nova makes fast, all with our marker; copies of them in Nova's own
database make thousands of them. The bare cost is that of curl: the same URLs, the same token and
microversion, in one process. Both take turns.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import shutil
import statistics
import subprocess
import time
import tracemalloc
import uuid
from collections.abc import Sequence
from typing import Any, Final

from bench.openstack_stage import Stage
from iaas_service import marker
from iaas_service.domain import Listing, Marker
from iaas_service.testing import SUITE_ID
from tests.e2e.waiting import until
from tests.openstack.cloud import copies
from tests.openstack.driver import driver

# So many in one call of Nova's API.
_AT_ONCE: Final = 50
_PATIENCE: Final = 1800.0
_LOOK: Final = 2.0


def show(
    stage: Stage, *, servers: int, page_size: int, times: int, aim: float, copied: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what was wrong; `copied` is how many copies each server has."""
    _curl_path()
    begun = time.monotonic()
    _make(stage, servers)
    making = time.monotonic() - begun
    servers *= 1 + copied
    with copies.added(stage.cloud.place, stage.project.project_id, copied):
        found = asyncio.run(_measured(stage, servers, page_size, times))
    wrong = found.pop("wrong")
    if found["ratio"] > aim:
        wrong.append(f"{found['ratio']} times the bare cost, where {aim:g} are the aim")
    return {"servers": servers, "made_in_seconds": round(making), **found}, wrong


def _make(stage: Stage, servers: int) -> None:
    """Few calls that make many each."""
    for first in range(0, servers, _AT_ONCE):
        number = min(_AT_ONCE, servers - first)
        mark = marker.write(_marker())
        stage.project.order(
            f"many-{first}", networks="none", metadata=mark, min_count=number, max_count=number
        )
    until(
        lambda: set(stage.cloud.servers(stage.project).values()) == {"active"},
        f"{servers} servers are active",
        seconds=_PATIENCE,
        pause=_LOOK,
    )


def _marker() -> Marker:
    request_id = str(uuid.uuid4())
    return Marker(
        suite_id=SUITE_ID, preset="many", request_id=request_id, fencing_token=1, spec_hash="9f2c"
    )


async def _measured(stage: Stage, servers: int, page_size: int, times: int) -> dict[str, Any]:
    """The driver and curl, in turns, and how much memory the driver takes."""
    cloud = driver(stage.project, page_size=page_size)
    async with cloud:
        before = _rss_mib()
        listing = await cloud.list()
        grown = _rss_mib() - before
        [site] = cloud.sites
        version = await site.reader.version()
        access = await site.api.access()
        headers = {
            "X-Auth-Token": access.token,
            "OpenStack-API-Version": f"compute {version}",
            "Accept": "application/json",
        }
        urls = await _pages(access.endpoints["compute"], headers, page_size)
        ours, bare = list[float](), list[float]()
        for _ in range(times):
            bare.append(await asyncio.to_thread(_curl, urls, headers))
            begun = time.monotonic()
            listing = await cloud.list()
            ours.append(time.monotonic() - begun)
        peak = await _peak_mib(cloud)
    return {
        "pages": len(urls),
        "listed": len(listing.vms),
        "complete": listing.complete,
        "driver_seconds": round(statistics.median(ours), 3),
        "driver_of_each": [round(each, 3) for each in ours],
        "curl_seconds": round(statistics.median(bare), 3),
        "curl_of_each": [round(each, 3) for each in bare],
        "ratio": round(statistics.median(ours) / statistics.median(bare), 3),
        "first_listing_grew_the_process_by_mib": round(grown, 1),
        "a_listing_and_all_that_it_needs_mib": peak,
        "wrong": _complaints(listing, servers),
    }


async def _pages(endpoint: str, headers: dict[str, str], page_size: int) -> list[str]:
    """The URLs of all pages, the empty last one included where Nova tells one."""
    import aiohttp  # noqa: PLC0415  an extra, as the driver is

    urls = [f"{endpoint}/servers/detail?limit={page_size}"]
    async with aiohttp.ClientSession(headers=headers) as client:
        while True:
            async with client.get(urls[-1]) as answer:
                said = await answer.json()
            links = [each["href"] for each in said.get("servers_links", [])]
            if not links or not said["servers"]:
                return urls
            urls.append(links[0])


def _curl(urls: Sequence[str], headers: dict[str, str]) -> float:
    """Seconds for all of them, one after the other, over one connection where that lasts."""
    given = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    asked = [word for url in urls for word in ("-o", "/dev/null", url)]
    begun = time.monotonic()
    command = [_curl_path(), "-sS", "--fail", "--noproxy", "*", *given, *asked]
    subprocess.run(command, check=True)
    return time.monotonic() - begun


def _curl_path() -> str:
    if (path := shutil.which("curl")) is None:
        raise SystemExit("curl is missing: apt-get install curl")
    return path


async def _peak_mib(cloud: Any) -> float:
    """Memory of Python at the highest point of a listing, beyond what was there before."""
    gc.collect()
    tracemalloc.start()
    try:
        await cloud.list()
        return round(tracemalloc.get_traced_memory()[1] / 2**20, 1)
    finally:
        tracemalloc.stop()


def _rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _complaints(listing: Listing, servers: int) -> list[str]:
    wrong = [] if listing.complete else [f"it is not complete: {listing.incomplete_reason}"]
    number = len({vm.vm_id for vm in listing.vms})
    return wrong if number == servers else [*wrong, f"{number} of {servers} servers are listed"]
