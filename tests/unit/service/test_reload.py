"""A policy file comes into force whole or not at all, and the last good one stays."""

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reaper.config import Settings, load
from reaper.service import reload
from reaper.service.reload import PolicyReloader

from .build import Reports

GOOD = "version: 1\npolicies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"
OTHER = "version: 1\npolicies: [{name: b, mode: enforce, match: {state: [idle], idle_for: 2m}}]\n"
BAD = "version: 1\npolicies:\n  - {name: a, match: {state: [idel], idle_for: 1x}}\n"


class PolicyFile:
    """A policy file in a folder of its own, its reloader, and what that reports."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "policies.yaml"
        self.write(GOOD)
        self.reports = Reports()
        self.gauges = self.reports.metrics.reload
        self.reloader = PolicyReloader(
            self.path,
            load(self.path),
            gauges=self.gauges,
            log=self.reports.log,
            objection=lambda new: "not c" if new.rules.policies[0].name == "c" else None,
        )

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")

    def check(self) -> bool:
        return asyncio.run(self.reloader.reload_if_changed())

    def check_twice(self) -> bool:
        """Two equal checks are needed before a file is loaded."""
        return any([self.check(), self.check()])

    def reload(self) -> bool:
        return asyncio.run(self.reloader.reload())

    @property
    def in_force(self) -> str:
        (policy,) = self.reloader.settings.rules.policies
        return policy.name

    @property
    def refused(self) -> list[str]:
        return [line["mistake"] for line in self.reports.lines("policy.refused")]


@pytest.fixture
def file(tmp_path: Path) -> PolicyFile:
    file = PolicyFile(tmp_path)
    assert file.check_twice() is False
    return file


def test_a_change_between_the_start_and_the_first_check_is_found(tmp_path: Path) -> None:
    file = PolicyFile(tmp_path)
    file.write(OTHER)
    assert [file.check(), file.check()] == [False, True]
    assert file.in_force == "b"


def test_a_file_is_loaded_only_when_two_checks_find_it_unchanged(file: PolicyFile) -> None:
    file.write(OTHER)
    assert file.check() is False
    file.write(OTHER + "# more\n")
    assert file.check() is False
    assert file.in_force == "a"
    assert file.check() is True
    assert file.in_force == "b"


@pytest.mark.parametrize("text", [OTHER, BAD])
def test_a_file_that_is_written_during_its_load_is_left_to_the_next_checks(
    file: PolicyFile, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def written_meanwhile(path: Path) -> Settings:
        file.write(text)
        return load(path)

    file.write(OTHER + "# more\n")
    file.check()
    with monkeypatch.context() as patch:
        patch.setattr(reload, "load", written_meanwhile)
        assert file.check() is False
    assert (file.in_force, file.refused) == ("a", [])
    assert file.check_twice() is (text == OTHER)


def test_a_signal_loads_a_file_at_once(file: PolicyFile) -> None:
    file.write(OTHER)
    assert file.reload() is True
    assert file.in_force == "b"


def test_the_same_content_is_not_loaded_again(file: PolicyFile) -> None:
    settings, succeeded = file.reloader.settings, file.gauges.last_success
    file.path.unlink()
    file.write(GOOD)
    os.utime(file.path, (1, 1))
    assert file.check_twice() is False
    assert file.reloader.settings is settings
    assert file.gauges.last_success == succeeded
    assert file.reports.logged == []


def test_a_good_file_is_logged_with_the_number_of_its_policies(file: PolicyFile) -> None:
    file.write(OTHER)
    assert file.check_twice() is True
    (line,) = file.reports.logged
    assert (line["event"], line["enforcing"], line["dry_running"]) == ("policy.reloaded", 1, 0)
    assert line["rules"] == file.reloader.settings.rules.digest[:12]


def test_a_bad_file_is_logged_with_every_mistake_and_the_last_good_one_stays(file: PolicyFile) -> None:
    digest = file.reloader.settings.rules.digest
    file.write(BAD)
    assert file.check_twice() is False
    assert file.in_force == "a"
    assert not file.gauges.succeeded
    assert [mistake.removeprefix(f"{file.path}:")[:5] for mistake in file.refused] == ["3:31:", "3:48:"]
    assert {line["in_force"] for line in file.reports.logged} == {digest[:12]}


def test_a_bad_file_is_logged_once_until_it_changes_and_again_at_a_signal(file: PolicyFile) -> None:
    file.write(BAD)
    counts = []
    for check in (file.reload, file.check_twice, file.check_twice, file.reload):
        assert check() is False
        counts.append(len(file.refused))
    assert counts == [2, 2, 2, 4]
    file.write(BAD.replace("1x", "1m"))
    file.check_twice()
    assert len(file.refused) == 5


def test_a_file_that_is_corrected_to_what_is_in_force_is_a_success_and_changes_nothing(
    file: PolicyFile,
) -> None:
    settings = file.reloader.settings
    file.write(BAD)
    file.check_twice()
    file.write(GOOD)
    assert file.check_twice() is False
    assert file.gauges.succeeded
    assert file.reloader.settings == settings
    assert not file.reports.lines("policy.reloaded")


@pytest.mark.parametrize("folder", [False, True], ids=["no file", "a folder"])
def test_a_missing_file_is_reported_and_a_new_one_comes_into_force(file: PolicyFile, *, folder: bool) -> None:
    file.path.unlink()
    if folder:
        file.path.mkdir()
    assert file.check_twice() is False
    assert (file.in_force, file.gauges.succeeded) == ("a", False)
    (mistake,) = file.refused
    assert ("Is a directory" if folder else "cannot be read: No such file or directory") in mistake

    if folder:
        file.path.rmdir()
    file.write(OTHER)
    assert file.check_twice() is True
    assert (file.in_force, file.gauges.succeeded) == ("b", True)


def test_a_symbolic_link_that_is_swapped_is_followed_as_kubernetes_does_it(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    file = PolicyFile(tmp_path / "mounted")
    for version, text in (("..1", GOOD), ("..2", OTHER)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "policies.yaml").write_text(text, encoding="utf-8")
    data = tmp_path / "..data"
    data.symlink_to("..1")
    file.path.unlink()
    file.path.symlink_to(data / "policies.yaml")
    assert file.check_twice() is False

    swapped = tmp_path / "..data_tmp"
    swapped.symlink_to("..2")
    swapped.rename(data)
    assert file.check_twice() is True
    assert file.in_force == "b"


def test_settings_that_contradict_the_command_line_are_refused(file: PolicyFile) -> None:
    file.write(OTHER.replace("name: b", "name: c"))
    assert file.check_twice() is False
    assert (file.in_force, file.refused, file.gauges.succeeded) == ("a", ["not c"], False)


def test_files_are_read_even_if_name_lookups_occupy_all_threads_of_the_loop(file: PolicyFile) -> None:
    file.write(OTHER)

    async def scene() -> bool:
        asyncio.get_running_loop().set_default_executor(_Busy(1))
        await file.reloader.reload_if_changed()
        return await file.reloader.reload_if_changed()

    assert asyncio.run(scene()) is True


class _Busy(ThreadPoolExecutor):
    """A pool that never starts its work."""

    def submit(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 (the signature of a pool)
        return Future()
