"""Terminations by command are found in the server's csvlog and jsonlog, with their times."""

import gzip
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.audit.reconcile import LoggedTermination, NotAServerLog, ServerLog

STARTED = datetime(2025, 6, 18, 12, 0, 0, tzinfo=UTC)
ENDED = datetime(2025, 6, 18, 12, 10, 0, 123_000, tzinfo=UTC)
SESSION = f"{int(STARTED.timestamp()):x}.1267"
FATAL = "FATAL:  terminating connection due to administrator command"


def csv_line(
    state: str = "57P01", *, zone: str = "CEST", message: str = "Abbruch", kind: str = "client backend"
) -> str:
    hour = {"CEST": 14, "UTC": 12}[zone]
    return (
        f'2025-06-18 {hour}:10:00.123 {zone},"app","shop",4711,"10.2.0.7:50000",{SESSION},3,"idle",'
        f'2025-06-18 {hour}:00:00 {zone},3/0,0,FATAL,{state},"{message}",,,,,,"SELECT\n1",,,"web-1",'
        f'"{kind}",,0\n'
    )


def json_line(state: str = "57P01", **fields: object) -> str:
    entry = {
        "timestamp": "2025-06-18 14:10:00.123 CEST",
        "pid": 4711,
        "session_id": SESSION,
        "session_start": "2025-06-18 14:00:00 CEST",
        "error_severity": "ВАЖНО",
        "state_code": state,
        "message": "завершение подключения по команде администратора",
        "backend_type": "client backend",
    }
    return json.dumps({**entry, **fields}) + "\n"


def read(folder: Path, text: str) -> list[LoggedTermination]:
    file = folder / "server.log"
    file.write_text(text, encoding="utf-8")
    return list(ServerLog().read(file))


@pytest.mark.parametrize("line", [csv_line(), json_line()], ids=["csv", "json"])
def test_a_termination_is_found_in_any_language_and_time_zone(tmp_path: Path, line: str) -> None:
    (ended,) = read(tmp_path, line)
    assert (ended.pid, ended.at, ended.started) == (4711, ENDED, STARTED)
    assert ended.place.line == line.count("\n")


@pytest.mark.parametrize(
    "line",
    [
        csv_line("57014"),
        json_line("57014"),
        csv_line(kind="background worker"),
        json_line(backend_type="walsender"),
        csv_line("00000", message="57P01 terminating connection due to administrator command"),
    ],
)
def test_other_entries_are_no_terminations(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, line) == []


def test_a_session_may_begin_in_winter_time_and_end_in_summer_time(
    tmp_path: Path,
) -> None:
    winter = csv_line("00000").replace("2025-06-18 14:00:00 CEST", "2025-06-18 13:00:00 CET")
    across = csv_line().replace("2025-06-18 14:00:00 CEST", "2025-06-18 13:00:00 CET")
    (ended,) = read(tmp_path, csv_line("00000") + winter + across)
    assert (ended.at, ended.started) == (ENDED, STARTED)


def test_the_period_that_a_log_covers_is_noted(tmp_path: Path) -> None:
    file = tmp_path / "server.csv.gz"
    file.write_bytes(gzip.compress((csv_line("00000", zone="UTC") + csv_line(zone="UTC")).encode()))
    log = ServerLog()
    assert len(list(log.read(file))) == 1
    assert (log.first, log.last) == (ENDED, ENDED)


@pytest.mark.parametrize("text", ["hello\n", f"\n2025-06-18 12:10:00.123 UTC [4711] {FATAL}\n"])
def test_a_log_of_stderr_is_refused_with_the_setting_to_change(tmp_path: Path, text: str) -> None:
    with pytest.raises(NotAServerLog, match="neither a csvlog nor a jsonlog\nhint: set log_destination"):
        read(tmp_path, text)
    assert read(tmp_path, "") == []


@given(
    text=st.lists(
        st.text(max_size=40)
        | st.sampled_from([csv_line(), json_line(), "{\n", '"', "[" * 10_000, "\0", "{}\n"])
    ).map("".join)
)
def test_no_text_stops_the_reading(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    for first in ("", csv_line(), json_line(), f"2025-06-18 12:10:00 UTC [1] {FATAL}\n"):
        with suppress(NotAServerLog):
            read(tmp_path_factory.getbasetemp(), first + text.replace("\ud800", ""))
