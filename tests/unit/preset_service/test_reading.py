"""What a preset file may say, and how it is told that it may not."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preset_service import reading
from preset_service.domain import (
    Attachment,
    Finding,
    HealthCheck,
    OnRemove,
    Policy,
    PresetSpec,
    Severity,
)
from preset_service.port import Reference
from preset_service.reading import Draft, Rejected
from preset_service.schema import Defaults, PolicyKeys
from vmshepherd_kit import settings

FORMER_DEFAULTS = {
    "iaas": {"driver": "DummyIaasDriver"},
    "healthcheck": {
        "driver": "HttpHealthcheck",
        "conn_timeout": 1,
        "read_timeout": 1,
        "port": 7007,
        "path": "/",
        "method": "GET",
        "check_status": 200,
        "terminate_heatlh_failed_delay": 10,
    },
}

FORMER_PRESET = """\
name: 'C_DEV-app-dev'
count: 1
flavor: m1.small
image: ubuntu-xenial
manage_interval: 0    # interval in seconds
manage_expire: 120
network:
  security_groups:
    - PaaS PrivateCloud
    - paas
  availability_zone: nova
  subnet:
    - pl-krk-2-something
iaas:
  project_name: PROJECT_NAME
  project_domain_name: PROJECT_DOMAIN
userdata: ''
meta_tags: {}
"""


def drafted(text: str | bytes, defaults: dict[str, Any] | None = None) -> Draft | Rejected:
    content = text.encode() if isinstance(text, str) else text
    return reading.draft(content, file="web.yaml", defaults=settings.parse(defaults, Defaults))


def good(text: str, defaults: dict[str, Any] | None = None) -> Draft:
    draft = drafted(text, defaults)
    assert isinstance(draft, Draft), draft
    return draft


def spec(text: str, defaults: dict[str, Any] | None = None) -> PresetSpec:
    return good(text, defaults).spec


def faults(text: str | bytes, defaults: dict[str, Any] | None = None) -> list[Finding]:
    rejected = drafted(text, defaults)
    assert isinstance(rejected, Rejected), rejected
    return list(rejected.findings)


def fault(text: str | bytes, defaults: dict[str, Any] | None = None) -> Finding:
    [finding] = faults(text, defaults)
    return finding


def test_a_preset_of_the_predecessor_is_read_unchanged() -> None:
    draft = good(FORMER_PRESET, FORMER_DEFAULTS)
    assert draft.name == "C_DEV-app-dev"
    assert draft.user_data == ""
    read = draft.spec
    assert (read.count, read.flavor, read.image) == (1, "m1.small", "ubuntu-xenial")
    assert read.provider == "dummy"
    assert read.iaas_options == {
        "project_name": "PROJECT_NAME",
        "project_domain_name": "PROJECT_DOMAIN",
    }
    assert read.network.security_groups == ("PaaS PrivateCloud", "paas")
    assert read.network.attachments == (Attachment(subnet="pl-krk-2-something"),)
    assert read.healthcheck == HealthCheck(
        driver="http",
        options={
            "conn_timeout": 1,
            "read_timeout": 1,
            "port": 7007,
            "path": "/",
            "method": "GET",
            "check_status": 200,
        },
        min_failing_time=timedelta(seconds=10),
    )
    assert read.manage_interval is None
    assert read.manage_expire == timedelta(seconds=120)


def test_a_preset_without_a_name_is_called_like_its_file() -> None:
    assert good("count: 1").name == "web"


def test_a_preset_needs_neither_flavor_nor_image() -> None:
    assert (spec("count: 1").flavor, spec("count: 1").image) == ("", "")


def test_an_unmanaged_preset_needs_no_count() -> None:
    assert spec("unmanaged: true").count == 0
    assert fault("unmanaged: false").key == "count"


@pytest.mark.parametrize("count", ['"10"', "1e3", "1.0", "true", "-1", "10001", "[]", "", "'x'"])
def test_a_count_is_a_whole_number_and_nothing_like_it(count: str) -> None:
    found = fault(f"image: x\ncount: {count}")
    assert (found.file, found.key) == ("web.yaml", "count")


def test_a_fault_tells_the_line_of_its_key() -> None:
    assert fault("image: x\n\ncount: ten").line == 3
    assert fault("count: 1\nnetwork:\n  subnets:\n    - {subnt: x}").line == 4


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("count: 1\nflavuor: x", "flavuor", "flavor"),
        ("count: 1\npolicy: {max_surges: 1}", "policy.max_surges", "max_surge"),
        ("count: 1\nhealthcheck: {fal: 3}", "healthcheck.fal", "fall"),
        ("count: 1\nnetwork: {subnetss: x}", "network.subnetss", "subnets"),
        (
            "count: 1\nhealthcheck: {terminate_health_faild_delay: 3}",
            "healthcheck.terminate_health_faild_delay",
            "terminate_health_failed_delay",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    text: str, key: str, near: str
) -> None:
    found = fault(text)
    assert (found.line, found.key) == (2, key)
    assert "unknown key" in found.message
    assert repr(near) in found.message


def test_all_faults_of_a_file_are_told_at_once_in_order_of_their_lines() -> None:
    found = faults("flavr: x\nimage: 5\ncount: no")
    assert [(each.line, each.key) for each in found] == [(1, "flavr"), (2, "image"), (3, "count")]


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", ".*", ".hidden", "-x", "a b", "x" * 129, "\u0430pp", '"a\\nb"', '"a\\n"', "''"],
)
def test_a_name_that_could_be_taken_for_something_else_is_refused(name: str) -> None:
    assert fault(f"count: 1\nname: {name}").key == "name"


def test_a_file_whose_own_name_is_no_name_must_name_its_preset() -> None:
    draft = reading.draft(b"count: 1", file="my preset.yaml", defaults=Defaults())
    assert isinstance(draft, Rejected)
    assert draft.findings[0].key == "name"


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "a: &a [x]\nb: *a",
        "count: 1\ncount: 2",
        "count: 1\n---\ncount: 2",
        "count: 1\0",
        "count: 1".encode("utf-16"),
        b"count: \xff",
        "[" * 3000,
        "{a: " * 3000,
        "- count: 1",
        "count",
        "",
        "# nothing",
        "count: 0777",
        "? [a]\n: b",
        "count: 1\n<<: {image: x}",
    ],
)
def test_a_hostile_or_ambiguous_text_is_a_finding(text: str | bytes) -> None:
    assert faults(text)


def test_a_text_above_the_limit_is_refused() -> None:
    assert "longer" in fault("count: 1\n" + "#" * 300_000).message


def test_a_text_of_many_faults_is_refused_before_they_are_explained() -> None:
    # Each takes a fraction of a millisecond, and the whole service would wait for them.
    found = faults("count: 1\nnetwork: {subnets: [" + "1," * 100_000 + "]}")
    assert "more than" in found[0].message
    assert len(faults("\n".join(f"key{i}: 1" for i in range(1_000)))) == 50


def test_texts_that_look_like_other_types_stay_what_they_are() -> None:
    tags = spec("count: 1\nmeta_tags: {a: no, b: 12:30:45, c: 'x', d: 5, e: true}").meta_tags
    assert tags == {"a": "no", "b": "12:30:45", "c": "x", "d": "5", "e": "true"}


def test_a_tag_that_yaml_would_change_silently_must_be_quoted() -> None:
    found = fault("count: 1\nmeta_tags:\n  version: 1.10")
    assert (found.line, found.key) == (3, "meta_tags.version")
    assert "quotes" in found.message


def test_a_tag_cannot_pretend_to_be_a_marker() -> None:
    assert fault("count: 1\nmeta_tags: {vmshepherd_preset: other}").key == "meta_tags"


@pytest.mark.parametrize(
    "key",
    ["auth_url", "username", "password", "api_key", "token", "secret", "user_domain_name",
     "os-password", "application_credential_secret", "endpoint_override", "private_key"],
)  # fmt: skip
def test_credentials_and_endpoints_are_refused_with_the_way_out(key: str) -> None:
    found = fault(f"count: 1\niaas:\n  project_name: p\n  {key}: hunter2")
    assert (found.line, found.key) == (4, f"iaas.{key}")
    assert "iaas.providers" in found.message
    assert "hunter2" not in found.message


def test_credentials_are_found_wherever_they_hide() -> None:
    found = fault("count: 1\niaas:\n  options:\n    a:\n      - {password: x}")
    assert (found.line, found.key) == (5, "iaas.options.a.0.password")


def test_a_project_and_a_region_are_for_the_preset_to_choose() -> None:
    read = spec("count: 1\niaas: {provider: os, project_name: p, region: r}")
    assert read.provider == "os"
    assert read.iaas_options == {"project_name": "p", "region": "r"}


def test_a_provider_may_be_named_by_a_text_or_by_its_former_class() -> None:
    assert spec("count: 1\niaas: process").provider == "process"
    assert spec("count: 1\niaas: {driver: OpenStackDriver}").provider == "openstack"
    assert spec("count: 1\niaas: {driver: Mine}").provider == "mine"
    assert spec("count: 1").provider == ""


def test_options_are_merged_with_those_of_the_same_driver_only() -> None:
    defaults = {"healthcheck": {"driver": "http", "port": 1, "headers": {"a": "b"}, "fall": 5}}
    merged = spec("count: 1\nhealthcheck: {port: 2, headers: {c: d}}", defaults).healthcheck
    assert merged == HealthCheck(
        driver="http", options={"port": 2, "headers": {"a": "b", "c": "d"}}, fall=5
    )
    other = spec("count: 1\nhealthcheck: {driver: tcp, port: 3}", defaults).healthcheck
    assert other == HealthCheck(driver="tcp", options={"port": 3}, fall=5)


def test_defaults_without_a_driver_hold_for_every_check() -> None:
    defaults = {
        "healthcheck": {"fall": 5, "rise": 4, "min_failing_time": "9s", "observe_only": True,
                        "port": 7007}
    }  # fmt: skip
    assert spec("count: 1\nhealthcheck: {driver: tcp, fall: 6}", defaults).healthcheck == (
        HealthCheck(
            driver="tcp",
            options={"port": 7007},
            fall=6,
            rise=4,
            min_failing_time=timedelta(seconds=9),
            observe_only=True,
        )
    )
    assert spec("count: 1", defaults).healthcheck is None


def test_options_of_another_provider_are_not_taken_over() -> None:
    defaults = {"iaas": {"provider": "os", "region": "r"}}
    assert spec("count: 1", defaults).iaas_options == {"region": "r"}
    assert spec("count: 1\niaas: process", defaults).iaas_options == {}


def test_options_of_a_check_may_stand_beside_or_beneath() -> None:
    for text in ("{driver: http, port: 1}", "{driver: http, driver_params: {port: 1}}",
                 "{driver: http, options: {port: 1}}"):  # fmt: skip
        assert spec(f"count: 1\nhealthcheck: {text}").healthcheck == HealthCheck(
            driver="http", options={"port": 1}
        )
    assert fault("count: 1\nhealthcheck: {driver: http, port: 1, options: {port: 2}}").line == 2


def test_no_check_at_all_is_a_way_to_say_that_running_is_enough() -> None:
    assert spec("count: 1").healthcheck is None


@pytest.mark.parametrize("key", ["terminate_health_failed_delay", "terminate_heatlh_failed_delay"])
def test_both_spellings_of_the_former_delay_mean_the_time_of_failing(key: str) -> None:
    check = spec(f"count: 1\nhealthcheck: {{driver: http, {key}: 30}}").healthcheck
    assert check is not None
    assert (check.min_failing_time, check.observe_only) == (timedelta(seconds=30), False)
    off = spec(f"count: 1\nhealthcheck: {{driver: http, {key}: -1}}").healthcheck
    assert off is not None
    assert (off.min_failing_time, off.observe_only) == (None, True)


def test_a_preset_can_switch_on_what_its_defaults_only_observe() -> None:
    defaults = {"healthcheck": {"driver": "http", "terminate_health_failed_delay": -1}}
    text = "count: 1\nhealthcheck: {terminate_health_failed_delay: 5}"
    check = spec(text, defaults).healthcheck
    assert check is not None
    assert not check.observe_only


def test_two_spellings_of_one_key_are_refused() -> None:
    assert "mean the same" in fault("count: 1\nflavor: a\nflavour: b").message
    assert fault("count: 1\nnetwork: {subnet: a, subnets: b}").key == "network"


def test_the_british_flavour_is_a_flavor() -> None:
    assert spec("count: 1\nflavour: m1").flavor == "m1"


@pytest.mark.parametrize("subnets", ["a", "[a]", "[{subnet: a}]"])
def test_subnets_may_be_written_in_every_former_way(subnets: str) -> None:
    for key in ("subnet", "subnets"):
        read = spec(f"count: 1\nnetwork: {{{key}: {subnets}}}")
        assert read.network.attachments == (Attachment(subnet="a"),)


def test_networks_and_subnets_are_attached_in_order() -> None:
    read = spec("count: 1\nnetwork: {networks: n, subnets: [{network: m, subnet: s}, t]}")
    assert read.network.attachments == (
        Attachment(network="n"),
        Attachment(network="m", subnet="s"),
        Attachment(subnet="t"),
    )


def test_a_preset_without_network_is_whole() -> None:
    assert spec("count: 1\nnetwork:").network.attachments == ()


def test_links_may_be_a_mapping_or_a_list() -> None:
    expected = {"panel": "https://p/"}
    for links in ("{panel: 'https://p/'}", "[{name: panel, url: 'https://p/'}]",
                  "[{label: panel, url: 'https://p/'}]"):  # fmt: skip
        assert spec(f"count: 1\npanel_links: {links}").panel_links == expected


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", " https://x", "//x"])
def test_a_link_that_could_run_code_in_a_panel_is_refused(url: str) -> None:
    assert fault(f"count: 1\npanel_links:\n  x: '{url}'").line == 3


def test_user_data_of_nothing_are_none() -> None:
    assert good("count: 1\nuserdata: null").user_data == ""
    assert good("count: 1\nuserdata:").user_data == ""


def test_user_data_may_name_a_file_and_its_root() -> None:
    draft = good("count: 1\nuserdata: file://boot.sh\nuserdata_source_root: scripts")
    assert draft.user_data == Reference(file="web.yaml", root="scripts", path="boot.sh")


def test_user_data_above_the_limit_are_refused() -> None:
    assert fault(f"count: 1\nuserdata: '{'x' * 65_537}'").key == "userdata"


def test_user_data_appear_in_no_representation() -> None:
    assert "hunter2" not in repr(good("count: 1\nuserdata: hunter2"))


def test_a_policy_is_merged_with_the_defaults() -> None:
    read = spec(
        "count: 1\npolicy: {max_surge: 2, on_remove: delete}",
        {"policy": {"max_surge": 5, "startup_grace": "1m"}},
    ).policy
    assert (read.max_surge, read.startup_grace) == (2, timedelta(minutes=1))
    assert read.on_remove is OnRemove.DELETE


def test_a_policy_under_which_nothing_could_be_replaced_is_refused() -> None:
    defaults = {"policy": {"max_surge": 0}}
    found = fault("count: 1\npolicy:\n  max_unavailable: 0", defaults)
    assert found.key == "policy"
    assert spec("count: 1\npolicy: {max_surge: 0}").policy.max_surge == 0


LIMITS = {
    "max_surge": "0 to 100",
    "max_unavailable": "0 to 100",
    "boot_timeout": "1s to 36500d",
    "max_deletions_per_cycle": "0 to 10000",
    "breaker_count": "1 to 10000",
    "breaker_percent": "1 to 100",
    "canary": "0 to 100",
    "min_healthy_time": "0s to 1d",
    "batch_pause": "0s to 7d",
    "reboots": "0 to 10",
    "rebuilds": "0 to 10",
    "keep_failed": "0 to 100",
    "keep_failed_time": "1s to 90d",
    "max_lifetime": "1s to 36500d",
    "suspend_after": "0 to 100",
    "removal_grace": "0s to 90d",
    "max_deletions_per_window": "0 to 10000",
    "deletion_window": "1s to 1d",
    "breaker_window": "0s to 1d",
    "longest_backoff": "1s to 1d",
}
WORDS = {
    "scale_in_order": ("newest", "oldest"),
    "on_remove": ("keep", "delete"),
    "replace": ("rolling", "on_failure", "never"),
    "on_stopped": ("park", "replace"),
}
OTHER_TIMES = {"startup_grace", "shutdown_notice"}


def beyond(limits: str) -> tuple[str, str]:
    """A value below a range, and one above it."""
    lowest, highest = limits.split(" to ")
    if highest.isdigit():
        return str(int(lowest) - 1), str(int(highest) + 1)
    below = -1 if lowest == "0s" else settings.duration(lowest).total_seconds() / 2
    return str(below), str(settings.duration(highest).total_seconds() + 1)


def test_every_key_of_a_policy_has_limits_that_are_tried_here() -> None:
    assert LIMITS.keys() | WORDS.keys() | OTHER_TIMES == set(PolicyKeys.model_fields)
    assert set(PolicyKeys.model_fields) == {each.name for each in fields(Policy)}


@pytest.mark.parametrize("key", LIMITS)
def test_a_value_beyond_its_range_is_refused_with_the_range(key: str) -> None:
    for value in (*beyond(LIMITS[key]), "'1x'", "true", "[1]"):
        found = fault(f"count: 1\npolicy:\n  on_remove: keep\n  {key}: {value}")
        assert (found.file, found.line, found.key) == ("web.yaml", 4, f"policy.{key}")
        assert LIMITS[key] in found.message
        assert found.severity is Severity.ERROR


@pytest.mark.parametrize("key", LIMITS)
def test_both_ends_of_a_range_may_be_written(key: str) -> None:
    for value in LIMITS[key].split(" to "):
        read = getattr(spec(f"count: 200\npolicy: {{{key}: {value}}}").policy, key)
        assert read == (int(value) if value.isdigit() else settings.duration(value))


@pytest.mark.parametrize("key", WORDS)
def test_a_choice_is_one_of_its_words(key: str) -> None:
    for word in WORDS[key]:
        assert getattr(spec(f"count: 1\npolicy: {{{key}: {word}}}").policy, key) == word
    found = fault(f"count: 1\npolicy: {{{key}: any}}")
    assert found.key == f"policy.{key}"
    assert all(repr(word) in found.message for word in WORDS[key])


@pytest.mark.parametrize("key", sorted(OTHER_TIMES))
def test_a_time_is_never_negative(key: str) -> None:
    assert fault(f"count: 1\npolicy: {{{key}: -1}}").key == f"policy.{key}"


def test_every_key_of_a_policy_may_stand_in_the_defaults_and_gives_way_to_the_preset() -> None:
    ends = {key: limits.split(" to ") for key, limits in {**LIMITS, "startup_grace": "1s to 2s",
            "shutdown_notice": "1s to 2s"}.items()}  # fmt: skip
    chosen = {key: (words[0], words[-1]) for key, words in WORDS.items()}
    pairs = {**{key: (_value(a), _value(b)) for key, (a, b) in ends.items()}, **chosen}
    defaults = {"policy": {key: pair[1] for key, pair in pairs.items()}}
    untouched = spec("count: 1", defaults).policy
    for key, (own, default) in pairs.items():
        merged = spec(f"count: 200\npolicy: {{{key}: {own}}}", defaults).policy
        assert getattr(merged, key) == _read(own)
        assert getattr(untouched, key) == _read(default)
        assert replace(merged, **{key: None}) == replace(untouched, **{key: None})


def _value(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _read(value: int | str) -> int | str | timedelta:
    is_time = isinstance(value, str) and value[0].isdigit()
    return settings.duration(value) if is_time else value


def test_a_list_is_a_preferred_choice_and_those_to_fall_back_on() -> None:
    read = spec("count: 1\nflavor: [small, medium, large]\nimage: [jammy, noble]")
    assert (read.flavor, read.fallback_flavors) == ("small", ("medium", "large"))
    assert (read.image, read.fallback_images) == ("jammy", ("noble",))


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("flavor: a", "flavor: [a]"),
        ("image: a", "image: [a]"),
        ("flavour: a", "flavour: [a]"),
        ("network: {availability_zone: a}", "network: {availability_zone: [a]}"),
        ("network: {availability_zone: a}", "network: {availability_zones: [a]}"),
        ("flavor: ''", "image: ''"),
    ],
)
def test_a_list_of_one_is_the_same_as_the_text(one: str, many: str) -> None:
    assert spec(f"count: 1\n{one}") == spec(f"count: 1\n{many}")
    assert spec(f"count: 1\n{many}").network.availability_zones == ()


@pytest.mark.parametrize("key", ["availability_zone", "availability_zones"])
def test_several_zones_are_a_spread(key: str) -> None:
    read = spec(f"count: 1\nnetwork: {{{key}: [b, a]}}").network
    assert (read.availability_zone, read.availability_zones) == ("", ("b", "a"))


def test_zones_that_stand_under_both_keys_are_refused_by_both_names() -> None:
    found = fault("count: 1\nnetwork: {availability_zone: a, availability_zones: [a, b]}")
    assert (found.line, found.key) == (2, "network")
    assert "availability_zone and availability_zones" in found.message


@pytest.mark.parametrize("key", ["flavor", "image", "network.availability_zone"])
@pytest.mark.parametrize(
    ("choices", "entry", "why"),
    [
        ("[a, b, a]", "", "entries 1 and 3 are the same"),
        ("[a, '']", ".1", "must not be empty"),
        ("[a, 5]", ".1", "must be a text"),
        ("[]", "", "a list of 1 to 10"),
        ("[a, b, c, d, e, f, g, h, i, j, k]", "", "a list of 1 to 10"),
    ],
)
def test_a_list_of_choices_that_cannot_be_meant_is_refused(
    key: str, choices: str, entry: str, why: str
) -> None:
    outer, _, inner = key.partition(".")
    line = f"{outer}: {{{inner}: {choices}}}" if inner else f"{outer}: {choices}"
    found = fault(f"count: 1\n{line}")
    assert (found.line, found.key) == (2, key + entry)
    assert why in found.message


def test_ten_choices_are_not_too_many() -> None:
    assert len(spec("count: 1\nimage: [a, b, c, d, e, f, g, h, i, j]").fallback_images) == 9


def test_an_unreadable_text_is_shown_under_the_name_that_it_seems_to_mean() -> None:
    seeming = {"name: app\ncount: [": "app", "count: [": "web", "name: a/b\n[": "web"}
    for text, name in seeming.items():
        rejected = drafted(text)
        assert isinstance(rejected, Rejected)
        assert rejected.name == name


def test_a_wrong_name_is_nobodys() -> None:
    rejected = drafted("name: a/b\ncount: 1")
    assert isinstance(rejected, Rejected)
    assert rejected.name is None


def test_defaults_are_held_to_the_rules_of_presets() -> None:
    with pytest.raises(ValueError, match=r"iaas\.password"):
        reading.checked(settings.parse({"iaas": {"password": "x"}}, Defaults))
    with pytest.raises(ValueError, match=r"did you mean 'rise'"):
        reading.checked(settings.parse({"healthcheck": {"rises": 1}}, Defaults))


words = st.text(max_size=9)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(words, inner))
keys = st.sampled_from(
    ["name", "count", "network", "iaas", "healthcheck", "policy", "meta_tags", "panel_links",
     "userdata", "unmanaged", "image", "flavor", "manage_interval", "userdata_source_root"]
)  # fmt: skip


@given(st.dictionaries(keys, values))
def test_whatever_the_keys_hold_the_outcome_is_a_draft_or_findings(raw: dict[str, Any]) -> None:
    outcome = drafted(json.dumps(raw))
    assert isinstance(outcome, Draft) or outcome.findings


@given(st.binary(max_size=200))
def test_whatever_the_bytes_the_outcome_is_a_draft_or_findings(content: bytes) -> None:
    outcome = drafted(content)
    assert isinstance(outcome, Draft) or outcome.findings
