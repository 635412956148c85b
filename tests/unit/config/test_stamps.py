"""A stamp changes if a reload could give other settings, and at no other time."""

import os
from pathlib import Path

import pytest

from reaper.config import BadPolicyFile, Settings, Stamp, load, stamp

HEAD = "version: 1\nservers_from: servers.d/*.yaml\nnotify: [{name: a, webhook_file: url}]\n"
LEAST = "policies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"


class Folder:
    """A policy file in force, and the files beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.policies = path / "policies.yaml"
        self.servers = path / "servers.d"
        self.servers.mkdir()
        self.write("policies.yaml", HEAD + LEAST)
        self.write("url", "http://chat/a\n")
        self.write("servers.d/a.yaml", "- name: a\n")
        self.settings: Settings = load(self.policies)

    def write(self, name: str, content: str) -> None:
        (self.path / name).write_text(content, encoding="utf-8")

    def stamp(self) -> Stamp:
        return stamp(self.policies, self.settings)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_file_with_the_same_content_keeps_its_stamp(folder: Folder) -> None:
    before = folder.stamp()
    for file in (folder.policies, folder.servers / "a.yaml", folder.path / "url"):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
        os.utime(file, (1, 1))
    folder.write("servers.d/readme.txt", "not read")
    folder.write("servers.d/.a.yaml.swp", "not read")
    assert folder.stamp() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("policies.yaml", HEAD + LEAST + "#\n"),
        ("servers.d/a.yaml", "- name: b\n"),
        ("servers.d/b.yaml", ""),
        ("url", "http://chat/b\n"),
    ],
)
def test_other_content_changes_it_even_within_one_tick_of_the_clock(
    folder: Folder, name: str, content: str
) -> None:
    before = folder.stamp()
    folder.write(name, content)
    for file in folder.path.rglob("*"):
        os.utime(file, (1, 1))
    after = folder.stamp()
    assert before != after == folder.stamp()


@pytest.mark.parametrize("name", ["policies.yaml", "servers.d/a.yaml", "servers.d", "url"])
def test_a_removed_file_changes_it_and_its_return_changes_it_back(folder: Folder, name: str) -> None:
    before = folder.stamp()
    (folder.path / name).rename(folder.path / "away")
    assert folder.stamp() != before
    (folder.path / "away").rename(folder.path / name)
    assert folder.stamp() == before


def test_the_link_that_kubernetes_swaps_changes_it(tmp_path: Path) -> None:
    """A mounted ConfigMap is a link to a link to a hidden folder; an update swaps the link in the middle."""
    for version, dsn in (("..1", "host=one"), ("..2", "host=two"), ("..3", "host=two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "servers.yaml").write_text(f"- {{name: a, dsn: {dsn}}}\n", encoding="utf-8")
        policies = f"version: 1\nservers_from: servers.yaml\n{LEAST}"
        (tmp_path / version / "policies.yaml").write_text(policies, encoding="utf-8")
    for name in ("policies.yaml", "servers.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")

    def swap(version: str) -> None:
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    swap("..1")
    policies_file = tmp_path / "policies.yaml"
    settings = load(policies_file)
    first = stamp(policies_file, settings)
    swap("..2")
    second = stamp(policies_file, settings)
    swap("..3")
    assert first != second == stamp(policies_file, settings)
    assert [server.dsn for server in load(policies_file).servers] == ["host=two"]


def test_the_correction_of_a_file_that_only_a_refused_policy_file_names_changes_it(folder: Folder) -> None:
    """Otherwise the new settings would wait for a second edit of a policy file that is right by now."""
    folder.write("new.yaml", "- nmae: a\n")
    folder.write("policies.yaml", f"version: 1\nservers_from: new.yaml\n{LEAST}")
    with pytest.raises(BadPolicyFile):
        load(folder.policies)
    before = folder.stamp()
    folder.write("new.yaml", "- name: a\n")
    assert folder.stamp() != before


def test_a_stamp_does_not_depend_on_the_settings_in_force(folder: Folder) -> None:
    """The first stamp after a reload must equal the one before it."""
    folder.write("more.yaml", "- name: b\n")
    folder.write("policies.yaml", f"version: 1\nservers_from: more.yaml\n{LEAST}")
    assert folder.stamp() == stamp(folder.policies, load(folder.policies))


@pytest.mark.parametrize("content", [b"", b"\xff", b"[", b"version: 2\n", b"servers_from: 1\n", b"~"])
def test_an_unreadable_policy_file_has_a_stamp(folder: Folder, content: bytes) -> None:
    folder.policies.write_bytes(content)
    assert folder.stamp() == folder.stamp()


def test_pipes_and_folders_have_a_stamp_without_waiting(folder: Folder) -> None:
    before = folder.stamp()
    os.mkfifo(folder.servers / "pipe.yaml")
    (folder.servers / "folder.yaml").mkdir()
    (folder.servers / "link.yaml").symlink_to("nowhere")
    assert folder.stamp() == folder.stamp() != before
    folder.policies.unlink()
    os.mkfifo(folder.policies)
    assert folder.stamp() == folder.stamp()
