"""Answers of a real Nova (Zed, microversion 2.93), shortened by what the driver does not read."""

from __future__ import annotations

from typing import Any, Final

BUILDING: Final[dict[str, Any]] = {
    "id": "ba2d25e1-f674-4af7-bdf7-9186e270139e",
    "name": "web-2",
    "status": "BUILD",
    "tenant_id": "f57079a5d8cd422291a7b47558666d10",
    "metadata": {},
    "hostId": "",
    "image": {"id": "f0ba99d9-847a-4b15-94e4-e388840e2b87", "links": []},
    "flavor": {"vcpus": 1, "ram": 512, "disk": 10, "original_name": "small", "extra_specs": {}},
    "created": "2026-11-23T01:59:54Z",
    "updated": "2026-11-23T01:59:54Z",
    "addresses": {},
    "OS-EXT-AZ:availability_zone": "",
    "key_name": None,
    "OS-EXT-STS:task_state": "scheduling",
    "OS-EXT-STS:vm_state": "building",
    "OS-EXT-STS:power_state": 0,
    "locked": False,
    "tags": [],
}

ACTIVE: Final[dict[str, Any]] = {
    "id": "db347d4d-36b6-43ac-ad32-e275b158f471",
    "name": "web-1",
    "status": "ACTIVE",
    "tenant_id": "f57079a5d8cd422291a7b47558666d10",
    "metadata": {
        "vmshepherd_suite": "contract",
        "vmshepherd_preset": "web",
        "vmshepherd_request": "5e0a7c6e-2f36-4c35-9a4c-0d6f6e5c0c11",
        "vmshepherd_token": "7",
        "vmshepherd_spec": "9f2c",
    },
    "hostId": "a7759b57a3948a94ef70f1214b7bed46cb8e5f1dc04233f954892791",
    "image": {"id": "f0ba99d9-847a-4b15-94e4-e388840e2b87", "links": []},
    "flavor": {"vcpus": 1, "ram": 512, "disk": 10, "original_name": "small", "extra_specs": {}},
    "created": "2026-11-23T01:59:52Z",
    "updated": "2026-11-23T01:59:57Z",
    "addresses": {
        "private": [
            {
                "version": 4,
                "addr": "10.0.3.173",
                "OS-EXT-IPS:type": "fixed",
                "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:2c:9c:b1",
            }
        ]
    },
    "OS-EXT-AZ:availability_zone": "north",
    "key_name": "ops",
    "OS-EXT-STS:task_state": None,
    "OS-EXT-STS:vm_state": "active",
    "OS-EXT-STS:power_state": 1,
    "locked": False,
    "tags": [],
}

FAILED: Final[dict[str, Any]] = {
    **BUILDING,
    "id": "9eff746b-0fef-4e57-9d8b-6643794dee23",
    "status": "ERROR",
    "fault": {
        "code": 500,
        "created": "2026-11-23T01:59:59Z",
        "message": "No valid host was found. ",
    },
    "OS-EXT-STS:task_state": None,
    "OS-EXT-STS:vm_state": "error",
}

# What is told of a server whose cell does not answer.
PARTIAL: Final[dict[str, Any]] = {
    "id": "db347d4d-36b6-43ac-ad32-e275b158f471",
    "status": "UNKNOWN",
    "tenant_id": "f57079a5d8cd422291a7b47558666d10",
    "created": "2026-11-23T01:59:52Z",
    "links": [],
}
