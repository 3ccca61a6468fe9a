from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf import struct_pb2

from health_service import convert
from health_service.drivers.http import HttpCheck
from health_service.testing import tools
from vmshepherd.health.v1 import health_service_pb2 as pb2
from vmshepherd_kit.errors import BadRequest


def message(*ids: str, driver: str = "http", **options: Any) -> pb2.ProbeRequest:
    struct = struct_pb2.Struct()
    struct.update(options)
    return pb2.ProbeRequest(
        check=pb2.Check(driver=driver, options=struct),
        targets=[pb2.Target(target_id=target_id, addresses=["10.0.0.1"]) for target_id in ids],
    )


def test_whole_numbers_come_back_whole() -> None:
    raw: dict[str, Any] = {
        "port": 80,
        "timeout": 1.5,
        "on": True,
        "none": None,
        "list": [200, "a", {"b": 2}],
    }
    options = convert.to_request(message("vm", **raw)).options
    assert options == raw
    assert isinstance(options["port"], int)
    assert isinstance(options["list"][0], int)
    assert isinstance(options["timeout"], float)


def test_infinity_is_left_for_the_check_to_refuse() -> None:
    options = convert.to_request(message("vm", port=math.inf)).options
    assert options["port"] == math.inf


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (message("vm", driver=""), "check.driver"),
        (message("vm", "other", "vm"), "targets[2].target_id"),
        (message("vm", ""), "targets[1].target_id"),
        (message("x" * 257), "targets[0].target_id"),
        (message(*map(str, range(10_001))), "targets"),
        (
            pb2.ProbeRequest(
                check=pb2.Check(driver="http"),
                targets=[pb2.Target(target_id="vm", addresses=["10.0.0.1"] * 101)],
            ),
            "targets[0].addresses",
        ),
    ],
)
def test_what_breaks_the_contract_is_named(request_: pb2.ProbeRequest, field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        convert.to_request(request_)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_ten_thousand_targets_are_allowed() -> None:
    assert len(convert.to_request(message(*map(str, range(10_000)))).targets) == 10_000


def test_a_check_is_described_with_the_keys_of_its_options() -> None:
    described = convert.from_check("http", HttpCheck(tools()))
    properties = described.options_schema.fields["properties"].struct_value.fields
    assert {"check_status", "path", "tls", "address_family"} <= set(properties)
    assert properties["conn_timeout"].struct_value.fields["default"].number_value == 1
    assert described.summary
