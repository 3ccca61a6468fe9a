"""Messages of health.v1 ⇄ values of the domain. Pure; refuses what the contract refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf import json_format, struct_pb2

from health_service.domain import Result, Summary, Target, TargetId, Verdict
from health_service.port import Check
from vmshepherd.health.v1 import health_service_pb2 as pb2
from vmshepherd_kit import stamps
from vmshepherd_kit.errors import BadRequest, Violation
from vmshepherd_kit.settings import Settings

MOST_TARGETS: Final = 10_000
_MOST_ADDRESSES: Final = 100
_LONGEST_ID: Final = 256
_MOST_VIOLATIONS: Final = 10
_EXACT: Final = 2**53

_VERDICTS: Final = {
    Verdict.HEALTHY: pb2.VERDICT_HEALTHY,
    Verdict.UNHEALTHY: pb2.VERDICT_UNHEALTHY,
    Verdict.UNKNOWN: pb2.VERDICT_UNKNOWN,
}


@dataclass(frozen=True)
class Request:
    """A ProbeRequest that is well-formed; the options are the driver's to judge."""

    driver: str
    options: Mapping[str, Any]
    targets: Sequence[Target]


def to_request(message: pb2.ProbeRequest) -> Request:
    """The request; BadRequest when it breaks the contract."""
    violations = _violations(message)
    if violations:
        sentence = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise BadRequest(sentence, violations=violations)
    return Request(
        message.check.driver,
        {key: _plain(value) for key, value in message.check.options.fields.items()},
        [Target(TargetId(t.target_id), tuple(t.addresses)) for t in message.targets],
    )


def from_results(results: Sequence[Result]) -> pb2.ProbeResponse:
    """A chunk of results."""
    chunk = [
        pb2.ProbeResult(
            target_id=result.target_id,
            verdict=_VERDICTS[result.verdict],
            reason=result.reason,
            message=result.message,
            latency=stamps.to_duration(result.latency),
        )
        for result in results
    ]
    return pb2.ProbeResponse(results=pb2.ProbeResults(results=chunk))


def from_summary(summary: Summary) -> pb2.ProbeResponse:
    """The end of the stream."""
    return pb2.ProbeResponse(
        summary=pb2.ProbeSummary(
            control_passed=summary.control_passed,
            control_message=summary.control_message,
            prober_id=summary.prober_id,
            healthy=summary.healthy,
            unhealthy=summary.unhealthy,
            unknown=summary.unknown,
        )
    )


def from_check(name: str, check: Check) -> pb2.CheckDescription:
    """A check with the JSON Schema of its options."""
    schema = _schema(check.options)
    return pb2.CheckDescription(name=name, summary=check.summary, options_schema=schema)


@cache
def _schema(options: type[Settings]) -> struct_pb2.Struct:
    """Once for each kind of options: every orchestrator asks for it every few seconds."""
    schema = struct_pb2.Struct()
    json_format.ParseDict(options.model_json_schema(), schema)
    return schema


def _violations(message: pb2.ProbeRequest) -> list[Violation]:
    if not message.check.driver:
        return [Violation("check.driver", "is required")]
    if len(message.targets) > MOST_TARGETS:
        text = f"{len(message.targets)} are too many; at most {MOST_TARGETS}"
        return [Violation("targets", text)]
    found: list[Violation] = []
    seen: set[str] = set()
    for index, target in enumerate(message.targets):
        if not 0 < len(target.target_id) <= _LONGEST_ID:
            text = f"is required, and has at most {_LONGEST_ID} characters"
            found.append(Violation(f"targets[{index}].target_id", text))
        elif target.target_id in seen:
            found.append(Violation(f"targets[{index}].target_id", "stands there twice"))
        if len(target.addresses) > _MOST_ADDRESSES:
            text = f"more than {_MOST_ADDRESSES}"
            found.append(Violation(f"targets[{index}].addresses", text))
        seen.add(target.target_id)
    return found[:_MOST_VIOLATIONS]


def _plain(value: struct_pb2.Value) -> Any:
    """The value as YAML would have given it: a Struct has no integers, only doubles."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return {key: _plain(inner) for key, inner in value.struct_value.fields.items()}
        case "list_value":
            return [_plain(inner) for inner in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < _EXACT else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None
