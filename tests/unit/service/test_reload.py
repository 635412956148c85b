"""A policy file is taken whole or not at all, and the last good one stays in force."""

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reaper.config import Settings, load
from reaper.service import reload as reloader
from reaper.service.reload import PolicyReloader

from .build import Ears

GOOD = "version: 1\npolicies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"
OTHER = "version: 1\npolicies: [{name: b, mode: enforce, match: {state: [idle], idle_for: 2m}}]\n"
BAD = "version: 1\npolicies:\n  - {name: a, match: {state: [idel], idle_for: 1x}}\n"


class Book:
    """A rulebook in a folder of its own, with ears."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "policies.yaml"
        self.write(GOOD)
        self.ears = Ears()
        gauges = self.ears.metrics.reload
        self.gauges = gauges
        self.reloader = PolicyReloader(self.path, load(self.path), gauges=gauges, log=self.ears.log)
        assert self.look() is False

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")

    def glance(self) -> bool:
        return asyncio.run(self.reloader.reload_if_changed())

    def look(self) -> bool:
        """Twice, so that whatever has changed rests in between."""
        return any(self.glance() for _ in range(2))

    def reload(self) -> bool:
        return asyncio.run(self.reloader.reload())

    @property
    def in_force(self) -> list[str]:
        return [policy.name for policy in self.reloader.settings.rules.policies]

    @property
    def refused(self) -> list[str]:
        return [line["mistake"] for line in self.ears.lines("policy.refused")]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_a_file_is_taken_when_it_is_the_same_at_two_looks_and_not_while_it_is_being_written(
    book: Book,
) -> None:
    book.write(OTHER)
    assert book.glance() is False
    book.write(OTHER + "# more\n")
    assert book.glance() is False
    assert book.in_force == ["a"]
    assert book.glance() is True
    assert book.in_force == ["b"]


@pytest.mark.parametrize("text", [OTHER, BAD])
def test_a_file_that_is_written_between_two_looks_at_it_and_its_reading_is_left_to_the_next_ones(
    book: Book, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def written_meanwhile(path: Path) -> Settings:
        book.write(text)
        return load(path)

    book.write(OTHER + "# more\n")
    book.glance()
    with monkeypatch.context() as patch:
        patch.setattr(reloader, "load", written_meanwhile)
        assert book.glance() is False
    assert (book.in_force, book.refused) == (["a"], [])
    assert book.look() is (text == OTHER)


def test_a_signal_says_that_a_file_is_ready_and_it_is_taken_at_once(book: Book) -> None:
    book.write(OTHER)
    assert book.reload() is True
    assert book.in_force == ["b"]


def test_nothing_changes_and_nothing_is_said_as_long_as_the_content_is_the_same(book: Book) -> None:
    settings, succeeded = book.reloader.settings, book.gauges.last_success
    book.path.unlink()
    book.write(GOOD)
    os.utime(book.path, (1, 1))
    assert book.look() is False
    assert book.reloader.settings is settings
    assert book.gauges.last_success == succeeded
    assert book.ears.logged == []


def test_a_good_file_comes_into_force_and_is_told_in_numbers(book: Book) -> None:
    book.write(OTHER)
    assert book.look() is True
    assert book.in_force == ["b"]
    (told,) = book.ears.logged
    assert (told["event"], told["enforcing"], told["dry_running"]) == ("policy.reloaded", 1, 0)
    assert told["rules"] == book.reloader.settings.rules.digest[:12]


def test_a_bad_file_is_told_with_every_mistake_and_the_last_good_one_stays(book: Book) -> None:
    in_force = book.reloader.settings.rules.digest
    book.write(BAD)
    assert book.look() is False
    assert book.in_force == ["a"]
    assert not book.gauges.succeeded
    assert [mistake.removeprefix(f"{book.path}:")[:5] for mistake in book.refused] == ["3:31:", "3:48:"]
    assert {line["in_force"] for line in book.ears.logged} == {in_force[:12]}


def test_a_bad_file_is_told_once_until_it_changes(book: Book) -> None:
    book.write(BAD)
    book.look()
    told = len(book.refused)
    assert [book.look() for _ in range(3)] == [False] * 3
    assert len(book.refused) == told

    book.write(BAD.replace("1x", "1m"))
    book.look()
    assert len(book.refused) == told + 1


def test_a_bad_file_that_a_signal_has_told_is_not_told_by_the_next_look(book: Book) -> None:
    book.write(BAD)
    assert book.reload() is False
    told = len(book.refused)
    assert book.look() is False
    assert len(book.refused) == told


def test_a_signal_tells_a_bad_file_again(book: Book) -> None:
    book.write(BAD)
    book.reload()
    told = len(book.refused)
    book.reload()
    assert len(book.refused) == 2 * told


def test_a_file_that_is_mended_to_what_it_was_counts_as_a_success_and_changes_nothing(book: Book) -> None:
    settings = book.reloader.settings
    book.write(BAD)
    book.look()
    book.write(GOOD)
    assert book.look() is False
    assert book.gauges.succeeded
    assert book.reloader.settings == settings
    assert not book.ears.lines("policy.reloaded")


def test_a_file_that_vanishes_is_told_and_one_that_is_back_is_good_again(book: Book) -> None:
    book.path.unlink()
    assert book.look() is False
    assert not book.gauges.succeeded
    assert book.in_force == ["a"]
    assert "cannot be read: No such file or directory" in book.refused[0]

    book.write(OTHER)
    assert book.look() is True
    assert book.gauges.succeeded
    assert book.in_force == ["b"]


def test_a_folder_in_place_of_the_file_changes_nothing(book: Book) -> None:
    book.path.unlink()
    book.path.mkdir()
    assert book.look() is False
    assert book.in_force == ["a"]
    assert len(book.refused) == 1


def test_a_link_that_is_swapped_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    book = Book(tmp_path / "real")
    for version, text in (("..1", GOOD), ("..2", OTHER)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "policies.yaml").write_text(text, encoding="utf-8")
    data = tmp_path / "..data"
    data.symlink_to("..1")
    book.path.unlink()
    book.path.symlink_to(data / "policies.yaml")
    assert book.look() is False

    swapped = tmp_path / "..data_tmp"
    swapped.symlink_to("..2")
    swapped.rename(data)
    assert book.look() is True
    assert book.in_force == ["b"]


def test_what_changed_between_the_start_and_the_first_look_is_found(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(GOOD, encoding="utf-8")
    settings = load(path)
    path.write_text(OTHER, encoding="utf-8")
    ears = Ears()
    found = PolicyReloader(path, settings, gauges=ears.metrics.reload, log=ears.log)

    assert [asyncio.run(found.reload_if_changed()) for _ in range(2)] == [False, True]
    assert [policy.name for policy in found.settings.rules.policies] == ["b"]


def test_settings_that_would_not_have_been_started_with_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(GOOD, encoding="utf-8")
    ears = Ears()
    strict = PolicyReloader(
        path,
        load(path),
        gauges=ears.metrics.reload,
        log=ears.log,
        objection=lambda new: "not b" if new.rules.policies[0].name == "b" else None,
    )
    path.write_text(OTHER, encoding="utf-8")

    assert [asyncio.run(strict.reload_if_changed()) for _ in range(2)] == [False, False]
    assert [policy.name for policy in strict.settings.rules.policies] == ["a"]
    assert [line["mistake"] for line in ears.lines("policy.refused")] == ["not b"]
    assert not ears.metrics.reload.succeeded


def test_files_are_read_even_when_all_threads_of_the_loop_wait_for_names(book: Book) -> None:
    book.write(OTHER)

    async def scene() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_Full(1))
        await book.reloader.reload_if_changed()
        return await book.reloader.reload_if_changed()

    assert asyncio.run(scene()) is True


class _Full(ThreadPoolExecutor):
    """A pool in which nothing is ever begun."""

    def submit(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 (as any pool takes it)
        return Future()
