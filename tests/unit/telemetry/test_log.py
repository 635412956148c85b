import io
import json

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
