from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from health_service.addresses import AddressOptions, Rules, aim, url_host
from health_service.domain import Aim, Reason, Result, Target, TargetId, Verdict


def chosen(*addresses: str, rules: Rules | None = None, **options: object) -> Aim | Result:
    target = Target(TargetId("vm"), addresses)
    return aim(target, AddressOptions.model_validate(options), rules or Rules())


def why_unknown(outcome: Aim | Result) -> str:
    assert isinstance(outcome, Result)
    assert outcome.verdict is Verdict.UNKNOWN
    return outcome.reason


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::a9fe:a9fe",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd00:ec2::254%1",
        "fd20:ce::254",
        "ff02::1",
        "::",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "::169.254.169.254",
        "2002:a9fe:a9fe::",
        "64:ff9b::a9fe:a9fe",
        "2001:0:a9fe:a9fe::",
    ],
)
def test_addresses_that_lead_to_a_clouds_secrets_are_never_probed(address: str) -> None:
    assert why_unknown(chosen(address)) == Reason.FORBIDDEN_ADDRESS


@pytest.mark.parametrize(
    "address", ["127.1.2.3", "10.0.0.7", "203.0.113.9", "::1", "2001:db8::7", "::ffff:10.0.0.7"]
)
def test_addresses_of_vms_are_probed_as_they_are(address: str) -> None:
    assert chosen(address) == Aim(TargetId("vm"), ip_address(address))


@pytest.mark.parametrize(
    "text", ["vm.example", "localhost", "2130706433", "0x7f.1", "[::1]", "10.0.0.7:80", " ", ""]
)
def test_whatever_is_no_literal_address_is_not_looked_up(text: str) -> None:
    assert why_unknown(chosen(text)) == Reason.DNS


def test_without_an_address_nothing_is_known() -> None:
    assert why_unknown(chosen()) == Reason.NO_ADDRESS


def test_the_first_address_is_taken_unless_the_options_choose_another() -> None:
    addresses = ("10.0.0.7", "2001:db8::7", "10.0.0.8")
    assert chosen(*addresses) == Aim(TargetId("vm"), ip_address("10.0.0.7"))
    assert chosen(*addresses, address_index=2) == Aim(TargetId("vm"), ip_address("10.0.0.8"))
    assert chosen(*addresses, address_family="ipv6") == Aim(
        TargetId("vm"), ip_address("2001:db8::7")
    )
    assert chosen(*addresses, address_family="ipv4", address_index=1) == Aim(
        TargetId("vm"), ip_address("10.0.0.8")
    )


def test_a_choice_that_finds_none_is_no_verdict_upon_the_vm() -> None:
    assert why_unknown(chosen("10.0.0.7", address_family="ipv6")) == Reason.NO_ADDRESS
    assert why_unknown(chosen("10.0.0.7", address_index=1)) == Reason.NO_ADDRESS


def test_networks_that_the_operator_names_are_the_only_ones() -> None:
    rules = Rules(allowed=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
    assert isinstance(chosen("10.0.0.7", rules=rules), Aim)
    assert isinstance(chosen("2001:db8::7", rules=rules), Aim)
    assert why_unknown(chosen("127.0.0.1", rules=rules)) == Reason.FORBIDDEN_ADDRESS


def test_no_setting_opens_a_metadata_service() -> None:
    rules = Rules(allowed=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    assert why_unknown(chosen("169.254.169.254", rules=rules)) == Reason.FORBIDDEN_ADDRESS
    assert why_unknown(chosen("::ffff:a9fe:a9fe", rules=rules)) == Reason.FORBIDDEN_ADDRESS


def test_an_ipv6_address_stands_in_brackets_in_a_url() -> None:
    assert url_host(ip_address("2001:db8::7")) == "[2001:db8::7]"
    assert url_host(ip_address("10.0.0.7")) == "10.0.0.7"
