import io
import json

import pytest

from reaper.telemetry.log import LogFormat, LogLevel, make_log


def test_the_traceback_of_a_defect_is_in_the_json_too() -> None:
    stream = io.StringIO()
    log = make_log(LogFormat.JSON, LogLevel.INFO, to=stream)

    try:
        json.loads("{")
    except ValueError as error:
        log.exception("reaper.broken", exc_info=error)

    line = json.loads(stream.getvalue())
    assert line["exception"].startswith("Traceback (most recent call last)")
    assert "JSONDecodeError" in line["exception"]
    assert "exc_info" not in line


@pytest.mark.parametrize("log_format", [LogFormat.HUMAN, LogFormat.JSON])
def test_a_traceback_shows_no_local_variable(log_format: LogFormat) -> None:
    stream = io.StringIO()
    log = make_log(log_format, LogLevel.INFO, to=stream)
    password = f"hunter{1 + 1}"

    try:
        json.loads(f"{{{password}")
    except ValueError as error:
        log.exception("reaper.broken", exc_info=error)

    assert "Traceback" in stream.getvalue()
    assert password not in stream.getvalue()
