"""The configuration file: what is read, what is refused and where, the predecessor's included."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmshepherd_kit import config_file, settings
from vmshepherd_kit.config_file import Configuration, Unreadable

PREDECESSOR = """\
log_level: info
http:
  api: {allowed_methods: [list_presets, list_presets_with_tags, terminate_vm]}
  listen_port: 8888
worker_interval: 5
runtime: {driver: InMemoryDriver}
presets: {driver: DirectoryDriver, path: config/presets.d}
defaults:
  iaas: {driver: DummyIaasDriver, api_key: asd, api_secret: asd}
  healthcheck: {driver: HttpHealthcheck, port: 7007, terminate_heatlh_failed_delay: 10}
"""


class Listening(settings.Settings):
    """A section of a service."""

    port: int = 1


def written(folder: Path, text: str) -> Configuration:
    path = folder / "suite.yaml"
    path.write_text(text)
    return config_file.read(path, working_dir=folder)


def refused(folder: Path, text: str) -> list[str]:
    with pytest.raises(Unreadable) as caught:
        written(folder, text)
    return list(caught.value.lines)


def test_an_empty_file_means_defaults_everywhere(tmp_path: Path) -> None:
    configuration = written(tmp_path, "")
    assert configuration.suite.suite_id == "vmshepherd"
    assert configuration.log.level == "info"
    assert configuration.section("iaas") == {}


def test_without_a_file_everything_is_default_and_relative_to_the_working_directory(
    tmp_path: Path,
) -> None:
    configuration = config_file.defaults(embedded=True, working_dir=tmp_path)
    assert configuration.suite.base_dir == tmp_path
    assert configuration.suite.embedded
    assert configuration.section("preset") == {}


def test_a_relative_state_directory_lies_beside_the_file(tmp_path: Path) -> None:
    assert written(tmp_path, "state_dir: var/x").suite.state_dir == tmp_path / "var/x"


def test_the_state_directory_follows_the_desktop_convention_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere/state")
    assert written(tmp_path, "").suite.state_dir == Path("/somewhere/state/vmshepherd")


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "suite_id: a\norchestratr: {}\n")
    assert line == "suite.yaml:2: orchestratr: unknown key; did you mean 'orchestrator'?"


def test_a_former_key_is_also_a_nearest_one(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "worker_intervall: 5")
    assert "did you mean 'worker_interval'?" in line


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    lines = refused(tmp_path, "suite_id: 'a b'\nlog:\n  level: loud\n")
    assert [line.split(": ")[0] for line in lines] == ["suite.yaml:1", "suite.yaml:3"]


def test_yaml_that_could_mean_two_things_is_refused_with_its_line(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "suite_id: a\nsuite_id: b\n")
    assert line.startswith("suite.yaml:2: ")


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "- a\n- b\n")
    assert "must be a mapping of sections" in line


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"none\.yaml: cannot be read: No such file"):
        config_file.read(tmp_path / "none.yaml", working_dir=tmp_path)


def test_a_fault_inside_a_section_is_told_with_its_line(tmp_path: Path) -> None:
    configuration = written(tmp_path, "iaas:\n  # a port\n  prot: 2\n")
    with pytest.raises(Unreadable) as caught:
        configuration.parse("iaas", Listening)
    assert caught.value.lines == ("suite.yaml:3: iaas.prot: unknown key; did you mean 'port'?",)


def test_a_fault_in_the_options_of_a_driver_is_told_with_its_line_too(tmp_path: Path) -> None:
    text = "iaas:\n  providers:\n    my.cloud:\n      options:\n        prot: 2\n"
    configuration = written(tmp_path, text)
    finding = settings.Finding("iaas.providers.my.cloud.options.prot", "unknown key", "port")
    (line,) = configuration.refusal(settings.Invalid([finding])).lines
    assert line.startswith("suite.yaml:5: iaas.providers.my.cloud.options.prot: unknown key")


def test_a_section_parses_to_its_settings(tmp_path: Path) -> None:
    configuration = written(tmp_path, "iaas: {port: 7}\nhealth:\n")
    assert configuration.parse("iaas", Listening).port == 7
    assert configuration.parse("health", Listening).port == 1


def test_the_predecessors_file_is_read_as_it_is(tmp_path: Path) -> None:
    configuration = written(tmp_path, PREDECESSOR)
    assert configuration.log.level == "info"
    assert configuration.section("orchestrator") == {"interval": 5}
    assert configuration.section("runtime") == {"driver": "memory"}
    assert configuration.section("iaas") == {"providers": {"dummy": {"driver": "simulated"}}}
    assert configuration.section("gateway")["listen"] == {"address": "127.0.0.1:8888"}
    preset = configuration.section("preset")
    assert preset["sources"] == [
        {
            "name": "local",
            "driver": "directory",
            "options": {"path": str(tmp_path / "config/presets.d")},
        }
    ]
    assert preset["defaults"]["iaas"] == {"provider": "dummy"}
    assert preset["defaults"]["healthcheck"]["terminate_heatlh_failed_delay"] == 10


def test_credentials_of_the_dummy_cloud_are_dropped_aloud_and_without_their_values(
    tmp_path: Path,
) -> None:
    configuration = written(tmp_path, PREDECESSOR)
    assert any("api_key, api_secret dropped" in note for note in configuration.notes)
    assert "asd" not in repr(configuration.sections)
    assert "asd" not in " ".join(configuration.notes)


def test_former_paths_are_relative_to_the_working_directory_and_else_to_the_file(
    tmp_path: Path,
) -> None:
    folder, elsewhere = tmp_path / "etc", tmp_path / "elsewhere"
    (folder / "config/presets.d").mkdir(parents=True)
    (elsewhere / "config").mkdir(parents=True)
    path = folder / "suite.yaml"
    path.write_text(PREDECESSOR)

    def where() -> str:
        preset = config_file.read(path, working_dir=elsewhere).section("preset")
        return str(preset["sources"][0]["options"]["path"])

    assert where() == str(folder / "config/presets.d")
    (elsewhere / "config/presets.d").mkdir()
    assert where() == str(elsewhere / "config/presets.d")


def test_options_beneath_driver_params_mean_the_same(tmp_path: Path) -> None:
    text = "presets: {driver: DirectoryDriver, driver_params: {path: /p}}\n"
    text += "runtime: {driver: PostgresDriver, driver_params: {host: db}, pool: 3}\n"
    configuration = written(tmp_path, text)
    assert configuration.section("preset")["sources"][0]["options"] == {"path": "/p"}
    expected = {"driver": "postgres", "options": {"host": "db", "pool": 3}}
    assert configuration.section("runtime") == expected


def test_git_repositories_become_a_source_each(tmp_path: Path) -> None:
    text = "presets: {driver: GitRepoDriver, clone_dir: /c, repositories: {a: url-a, b: url-b}}"
    sources = written(tmp_path, text).section("preset")["sources"]
    assert [(s["name"], s["driver"], s["options"]["url"]) for s in sources] == [
        ("a", "git", "url-a"),
        ("b", "git", "url-b"),
    ]


def test_an_openstack_default_becomes_a_provider_and_what_presets_may_choose(
    tmp_path: Path,
) -> None:
    text = "defaults: {iaas: {driver: OpenStackDriver, auth_url: u, password: p, project_name: x}}"
    configuration = written(tmp_path, text)
    provider = configuration.section("iaas")["providers"]["openstack"]
    assert provider["options"] == {"auth_url": "u", "password": "p", "project_name": "x"}
    chosen = configuration.section("preset")["defaults"]["iaas"]
    assert chosen == {"provider": "openstack", "project_name": "x"}


def test_former_and_new_keys_live_in_one_file_while_they_agree(tmp_path: Path) -> None:
    text = "worker_interval: 5\norchestrator: {listen: {address: '127.0.0.1:0'}}\n"
    section = written(tmp_path, text).section("orchestrator")
    assert section == {"listen": {"address": "127.0.0.1:0"}, "interval": 5}


def test_former_and_new_keys_that_contradict_are_refused(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "orchestrator: {interval: 9}\nworker_interval: 5\n")
    assert line.startswith("suite.yaml:2: worker_interval: says the same as orchestrator.interval")


def test_a_default_cloud_declared_twice_is_refused(tmp_path: Path) -> None:
    text = "iaas: {providers: {dummy: {driver: simulated}}}\n"
    text += "defaults: {iaas: {driver: DummyIaasDriver}}\n"
    (line,) = refused(tmp_path, text)
    assert line.startswith("suite.yaml:2: defaults.iaas: names the provider 'dummy'")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http: {listen_port: '8888'}", "suite.yaml:1: http.listen_port"),
        ("http: {listen_prot: 1}", "did you mean 'listen_port'?"),
        ("http: {api: {allowed_methods: [shutdown]}}", "http.api.allowed_methods.0"),
        ("worker_interval: often", "worker_interval"),
        ("presets: {driver: DirectoryDriver}", "presets.path: is required"),
        ("presets: {driver: SvnDriver, path: x}", "presets.driver"),
        ("defaults: {iaas: {driver: AcmeDriver}}", "defaults.iaas.driver: must be one of"),
        ("defaults: {helthcheck: {}}", "did you mean 'healthcheck'?"),
        ("log_level: loud", "log_level"),
        ("presets: [1]", "presets"),
        ("preset: 7\npresets: {driver: DirectoryDriver, path: x}", "suite.yaml:1: preset"),
        ("iaas: [1]\ndefaults: {iaas: {driver: DummyIaasDriver}}", "suite.yaml:1: iaas"),
    ],
)
def test_wrong_former_keys_are_refused_by_their_own_names(
    tmp_path: Path, text: str, said: str
) -> None:
    assert any(said in line for line in refused(tmp_path, text)), refused(tmp_path, text)


def test_the_log_level_is_refused_by_the_line_of_the_former_key(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "worker_interval: 5\nlog_level: loud\n")
    assert line.startswith("suite.yaml:2: log_level: ")
