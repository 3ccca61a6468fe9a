"""How the findings of the doctor look on a terminal, and in a pipe."""

from __future__ import annotations

from admin.doctor_report import Finding, Status, lines

WRONG = Finding(
    subject="openstack",
    check="credentials",
    status=Status.WRONG,
    message="Keystone does not accept user 'demo' of domain 'Default' with this password: "
    "The request you have made requires authentication. (HTTP 401)",
    way_out="correct username, password or user_domain_name in iaas.providers.openstack.options",
)


def test_in_a_pipe_each_line_is_whole() -> None:
    told, way_out = lines(WRONG, None)
    assert told.split()[:3] == ["wrong", "openstack", "credentials"]
    assert told.endswith(WRONG.message)
    assert way_out.strip() == f"→ {WRONG.way_out}"


def test_on_a_terminal_no_line_is_longer_than_it_and_the_statuses_stand_alone_on_the_left() -> None:
    told = lines(WRONG, 80)
    assert all(len(line) <= 80 for line in told)
    assert [line for line in told if not line.startswith(" ")] == told[:1]
    assert " ".join(" ".join(told).split()).endswith(f"{WRONG.message} → {WRONG.way_out}")


def test_what_is_to_be_copied_is_never_broken() -> None:
    url = f"http://{'very-' * 20}long.example.org:5000/v3"
    finding = Finding(subject="web", check="spec", status=Status.OK, message=f"image at {url}")
    assert any(url in line for line in lines(finding, 80))


def test_a_name_that_is_longer_than_its_column_moves_the_rest_along() -> None:
    finding = Finding(
        subject="a-preset-of-a-long-name", check="spec", status=Status.OK, message="fine"
    )
    assert lines(finding, 80) == [f"ok        a-preset-of-a-long-name {'spec':<14} fine"]
