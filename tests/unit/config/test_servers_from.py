"""Servers from files beside the policy file: found, read and told of one by one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reaper.config import BadPolicyFile, Server, Settings, files, load

Tree = dict[str, str]
LEAST = "policies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"


@pytest.fixture
def load_with(tmp_path: Path) -> Callable[[str, Tree], Settings]:
    """Load a policy file with these first lines, beside these files."""

    def load_it(head: str, tree: Tree) -> Settings:
        for name, content in {"policies.yaml": f"version: 1\n{head}\n{LEAST}", **tree}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        return load(tmp_path / "policies.yaml")

    return load_it


Loading = Callable[[str, Tree], Settings]


def names(settings: Settings) -> list[str]:
    assert settings.warnings == ()
    return [server.name for server in settings.servers]


def test_servers_come_in_the_order_of_the_files_after_those_of_the_policy_file(load_with: Loading) -> None:
    settings = load_with(
        "servers_from: servers.d/*.yaml\nservers: [{name: own}]",
        {
            "servers.d/b.yaml": "- name: d\n- name: c\n",
            "servers.d/a.yaml": "- {name: b, dsn: host=db-2, labels: {env: prod}}\n",
            "servers.d/c.yaml": "[]\n",
        },
    )
    assert names(settings) == ["own", "b", "d", "c"]
    assert settings.servers[1] == Server(name="b", dsn="host=db-2", labels=(("env", "prod"),))


def test_a_file_that_two_patterns_find_is_read_once(
    load_with: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    contents = files.contents

    def read_and_count(file: str) -> bytes:
        if (name := Path(file).name) != "policies.yaml":
            read.append(name)
        return contents(file)

    monkeypatch.setattr(files, "contents", read_and_count)
    tree = {"servers.d/a.yaml": "- name: a\n", "servers.d/b.yaml": "- name: b\n"}
    assert names(load_with("servers_from: [servers.d/*.yaml, servers.d/a*.yaml]", tree)) == ["a", "b"]
    assert read == ["a.yaml", "b.yaml"]


def test_patterns_begin_in_the_folder_of_the_policy_file_and_mean_its_name_to_the_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "[a-z]*?"
    folder.mkdir()
    (folder / "policies.yaml").write_text(f"version: 1\nservers_from: s-*.json\n{LEAST}", encoding="utf-8")
    (folder / "s-1.json").write_text('[{"name": "a", "labels": {"env": "prod"}}]', encoding="utf-8")
    settings = load(folder / "policies.yaml")
    assert names(settings) == ["a"]
    assert settings.servers_from == (f"{folder}/s-*.json",)
    monkeypatch.chdir(folder)
    assert names(load(Path("policies.yaml"))) == ["a"]


def test_a_pattern_may_say_where_it_begins(load_with: Loading, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    tree = {"elsewhere/a.yaml": "- name: a\n", "elsewhere/b.yaml": "- name: b\n"}
    assert names(load_with(f"servers_from: {elsewhere}/[a].yaml", tree)) == ["a"]


def test_what_is_hidden_there_is_not_meant(load_with: Loading) -> None:
    """A mounted ConfigMap keeps its files in hidden folders, and editors leave hidden files behind."""
    tree = {"d/a.yaml": "- name: a\n", "d/.a.yaml": "torn: [", "d/..data.yaml/x.yaml": "torn: ["}
    assert names(load_with("servers_from: d/*.yaml", tree)) == ["a"]


def test_a_pattern_that_finds_nothing_leaves_no_server_and_a_warning(load_with: Loading) -> None:
    settings = load_with("servers_from: servers.d/*.yaml", {})
    assert settings.servers == ()
    assert [warning.where for warning in settings.warnings] == ["servers_from"]


def test_a_file_that_vanishes_after_it_was_listed_is_skipped(
    load_with: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    matching = files.matching

    def found_too_early(pattern: str) -> list[str]:
        return [*matching(pattern), pattern.replace("*", "gone")]

    monkeypatch.setattr(files, "matching", found_too_early)
    assert names(load_with("servers_from: servers.d/*.yaml", {"servers.d/a.yaml": "- name: a\n"})) == ["a"]


def test_a_link_that_leads_nowhere_is_skipped_and_told(load_with: Loading, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("nowhere")
    settings = load_with("servers_from: '[ab].yaml'", {"b.yaml": "- name: b\n"})
    assert [server.name for server in settings.servers] == ["b"]
    sentence = "the link points to nothing, so no server is read from it; correct the link, or delete it"
    assert [str(warning) for warning in settings.warnings] == [f"{tmp_path}/a.yaml:1:1: file: {sentence}"]


def test_what_is_no_file_is_a_sentence_and_nobody_waits_for_it(load_with: Loading, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    with pytest.raises(BadPolicyFile) as refused:
        load_with("servers_from: [pipe.yaml, folder.yaml, device.yaml]", {})
    assert [(Path(mistake.file).name, mistake.what) for mistake in refused.value.mistakes] == [
        ("device.yaml", "the file cannot be read: Not a regular file"),
        ("folder.yaml", "the file cannot be read: Is a directory"),
        ("pipe.yaml", "the file cannot be read: Not a regular file"),
    ]


def test_a_folder_that_cannot_be_listed_is_a_mistake_and_no_loss_of_servers(
    load_with: Loading, tmp_path: Path
) -> None:
    """A link to itself stands for a folder without a permission, which the superuser would not miss."""
    loop = tmp_path / "servers.d"
    loop.symlink_to(loop)
    with pytest.raises(BadPolicyFile, match="the folder cannot be read: Too many levels of symbolic links; "):
        load_with("servers_from: servers.d/*.yaml", {})


def test_a_list_larger_than_any_is_not_even_parsed(load_with: Loading) -> None:
    with pytest.raises(BadPolicyFile, match=r"a\.yaml:1:1: file: the file is larger than 10 MiB; "):
        load_with("servers_from: a.yaml", {"a.yaml": "#" * (10 * 1024 * 1024 + 1)})


def test_a_list_made_by_a_machine_may_be_long(load_with: Loading) -> None:
    servers = "".join(f"- name: s{number}\n" for number in range(1_500))
    assert len(load_with("servers_from: a.yaml", {"a.yaml": servers}).servers) == 1_500


def test_the_digest_of_the_rules_is_of_the_policy_file_alone(load_with: Loading) -> None:
    """Which servers there are changes no rule, so records before and after stay comparable."""
    before = load_with("servers_from: a.yaml", {"a.yaml": "- name: a\n"})
    after = load_with("servers_from: a.yaml", {"a.yaml": "- name: b\n"})
    assert before.rules == after.rules
    assert before != after
