"""Warnings of the event loop, a library or the interpreter are lines of our log."""

import asyncio
import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from errno import EMFILE
from typing import Any

import pytest

from reaper.telemetry.library_warnings import library_warnings_logged
from reaper.telemetry.log import LogFormat, LogLevel, make_log

LIBRARY = logging.getLogger("some.library")


def logged(event: Callable[[], object]) -> list[Mapping[str, Any]]:
    stream = io.StringIO()
    with library_warnings_logged(make_log(LogFormat.JSON, LogLevel.INFO, to=stream)):
        event()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def a_library_warns() -> None:
    LIBRARY.warning("of %s\nand its details", "something")


def a_warning_is_given() -> None:
    warnings.warn("of something", ResourceWarning, stacklevel=1)


def a_thread_fails() -> None:
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def a_callback_fails() -> None:
    async def scene() -> None:
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0)

    asyncio.run(scene())


def a_finalizer_fails() -> None:
    class Failing:
        def __del__(self) -> None:
            fail()

    Failing()


def fail() -> None:
    message = "of something"
    raise LookupError(message)


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize(
    ("event", "level", "by"),
    [
        (a_library_warns, "warning", "some.library"),
        (a_warning_is_given, "warning", "py.warnings"),
        (a_thread_fails, "error", "python"),
        (a_callback_fails, "error", "asyncio"),
        (a_finalizer_fails, "error", "python"),
    ],
)
def test_a_warning_is_one_line_of_the_log_and_nothing_else(
    event: Callable[[], object], level: str, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = logged(event)

    assert (line["event"], line["level"], line["by"]) == ("library.warning", level, by)
    assert "of something" in line["why"]
    assert "\n" not in line["why"]
    assert ("LookupError" in line.get("exception", "")) == (level == "error")
    assert capsys.readouterr().err == ""


def test_the_same_text_is_logged_once_a_minute_and_another_one_at_once() -> None:
    def event() -> None:
        for number in (1, 2, 1, 2, 1):
            LIBRARY.warning("number %s", number)

    assert [line["why"] for line in logged(event)] == ["number 1", "number 2"]


def test_a_lack_of_resources_is_no_defect_and_shows_no_traceback() -> None:
    shortage = OSError(EMFILE, "Too many open files")
    (line,) = logged(lambda: LIBRARY.error("no more connections", exc_info=shortage))
    assert line["why"] == "no more connections: OSError: [Errno 24] Too many open files"
    assert "exception" not in line


def test_afterwards_all_handlers_are_as_before() -> None:
    handlers, hook = list(logging.getLogger().handlers), threading.excepthook
    logged(lambda: None)
    assert (logging.getLogger().handlers, threading.excepthook) == (handlers, hook)
