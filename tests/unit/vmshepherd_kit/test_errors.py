"""The tree of errors, and its way over the wire and back."""

from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from vmshepherd_kit import errors, status
from vmshepherd_kit.errors import Recovery, ShepherdError, Violation

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]
TREE = [kind for kind in KINDS if issubclass(kind, ShepherdError) and kind is not ShepherdError]


def rebuilt(error: ShepherdError) -> ShepherdError:
    back = status.from_proto(status.to_proto(error))
    assert back is not None
    return back


@pytest.mark.parametrize("kind", TREE)
def test_every_kind_of_error_comes_back_as_itself(kind: type[ShepherdError]) -> None:
    back = rebuilt(kind("no", vm="i-1"))
    assert type(back) is kind
    assert (str(back), back.facts) == ("no", {"vm": "i-1"})


def test_no_two_kinds_of_error_are_alike_to_a_client() -> None:
    assert len({(kind.code, kind.reason) for kind in TREE}) == len(TREE)


def test_only_unavailable_is_retried_by_channels() -> None:
    retried = [kind for kind in TREE if kind.then is Recovery.RETRY]
    assert retried == [errors.Unavailable]
    assert [kind for kind in TREE if kind.code is grpc.StatusCode.UNAVAILABLE] == retried


def test_a_refusal_keeps_the_reason_that_names_the_gate() -> None:
    back = rebuilt(errors.Refused("it is not ours", reason="NOT_OURS"))
    assert type(back) is errors.Refused
    assert back.reason == "NOT_OURS"
    assert back.then is Recovery.STOP


def test_a_reason_of_another_version_is_understood_by_its_code() -> None:
    back = rebuilt(errors.NoCapacity("full", reason="NO_RACK_LEFT"))
    assert type(back) is errors.Throttled
    assert (back.reason, back.then) == ("NO_RACK_LEFT", Recovery.WAIT)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.CANCELLED, errors.OutcomeUnknown),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.OutcomeUnknown),
        (grpc.StatusCode.UNKNOWN, errors.Internal),
        (grpc.StatusCode.DATA_LOSS, errors.Internal),
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
    ],
)
def test_a_bare_status_of_another_program_is_understood_by_its_code(
    code: grpc.StatusCode, kind: type[ShepherdError]
) -> None:
    back = status.from_proto(status_pb2.Status(code=code.value[0], message="x"))
    assert type(back) is kind


def test_a_code_that_does_not_exist_is_a_bug_and_not_a_crash() -> None:
    assert isinstance(status.from_proto(status_pb2.Status(code=99)), errors.Internal)


def test_none_is_ok_and_ok_is_none() -> None:
    assert status.to_proto(None) == status_pb2.Status()
    assert status.from_proto(status_pb2.Status(code=0)) is None


def test_a_status_bears_exactly_one_error_info_of_our_domain() -> None:
    error = errors.BadRequest(
        "two fields are wrong",
        retry_after=timedelta(seconds=2),
        violations=[Violation("count", "must not be negative"), Violation("name", "is required")],
    )
    sent = status.to_proto(error)
    info = error_details_pb2.ErrorInfo()
    assert [detail.Unpack(info) for detail in sent.details].count(True) == 1
    assert (info.domain, info.reason) == ("vmshepherd", "BAD_REQUEST")


@given(
    st.text(),
    st.dictionaries(st.from_regex(r"[a-z_]{1,20}", fullmatch=True), st.text(), max_size=5),
    st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=365)),
)
def test_nothing_is_lost_on_the_way(
    message: str, facts: dict[str, str], retry_after: timedelta | None
) -> None:
    error = errors.Throttled(message, retry_after=retry_after)
    error.facts = facts
    back = rebuilt(error)
    assert (back.message, back.facts, back.retry_after) == (message, facts, retry_after)
