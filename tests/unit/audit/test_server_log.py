"""The server's log in every format it has: who was terminated by command, when, and when it began."""

import gzip
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.audit.server_log import COMMON, BadPrefix, Ended, NotALog, ServerLog, compiled

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


def read(folder: Path, text: str, *, prefix: str | None = None, zone: str | None = None) -> list[Ended]:
    file = folder / "server.log"
    file.write_text(text, encoding="utf-8")
    log = ServerLog(prefix=compiled(prefix) if prefix else None, zone=ZoneInfo(zone) if zone else None)
    return list(log.read(file))


@pytest.mark.parametrize("line", [csv_line(), json_line()], ids=["csv", "json"])
def test_whatever_its_language_and_zone_a_termination_is_known_by_its_state_and_id(
    tmp_path: Path, line: str
) -> None:
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
        "2025-06-18 12:10:00.123 UTC [4711] LOG:  terminating connection due to administrator command\n",
        "2025-06-18 12:10:00.123 UTC [4711] LOG:  statement: SELECT 1\n\t2025-06-18 12:10:00 UTC [1] "
        + FATAL,
    ],
)
def test_what_only_looks_like_one_is_none(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, line) == []


@pytest.mark.parametrize("prefix", COMMON)
def test_a_common_prefix_is_recognised(tmp_path: Path, prefix: str) -> None:
    values = {
        "%m": "2025-06-18 12:10:00.123 UTC",
        "%t": "2025-06-18 12:10:00 UTC",
        "%p": "4711",
        "%q": "",
        "%u": "app",
        "%d": "shop",
        "%a": "my app: [7] x",
        "%h": "10.2.0.7",
        "%r": "10.2.0.7(50000)",
        "%e": "57P01",
    }
    line = prefix
    for escape, value in values.items():
        line = line.replace(escape, value)
    (ended,) = read(tmp_path, line + FATAL + "\n")
    assert (ended.pid, ended.at.replace(microsecond=0)) == (4711, ENDED.replace(microsecond=0))


def test_a_prefix_that_is_given_may_hold_whatever_it_likes(tmp_path: Path) -> None:
    line = f"[{SESSION}] <app> 100% 57P01 1750248600.123 4711 FATAL:  arrêt des connexions\n"
    (ended,) = read(tmp_path, line, prefix="[%c] <%-3u> 100%% %e %n %p ")
    assert (ended.pid, ended.at, ended.started) == (4711, ENDED, STARTED)


@pytest.mark.parametrize("prefix", ["", "%a", "%p", "%m", "%m %p %t"])
def test_a_prefix_that_does_not_tell_who_and_when_is_refused(prefix: str) -> None:
    with pytest.raises(BadPrefix):
        compiled(prefix)


def test_times_in_a_zone_that_only_a_person_knows_are_asked_for(tmp_path: Path) -> None:
    line = f"2025-06-18 14:10:00.123 CEST [4711] {FATAL}\n"
    with pytest.raises(NotALog, match="the log's times are in CEST: say with --log-timezone"):
        read(tmp_path, line)
    (ended,) = read(tmp_path, line, zone="Europe/Berlin")
    assert ended.at == ENDED


def test_a_log_knows_from_when_to_when_it_reaches(tmp_path: Path) -> None:
    file = tmp_path / "server.csv.gz"
    file.write_bytes(gzip.compress((csv_line("00000", zone="UTC") + csv_line(zone="UTC")).encode()))
    log = ServerLog()
    assert len(list(log.read(file))) == 1
    assert (log.first, log.last) == (ENDED, ENDED)


def test_what_is_no_log_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotALog, match="begins with no log_line_prefix that is known here"):
        read(tmp_path, "hello\n")
    assert read(tmp_path, "") == []


@given(
    text=st.lists(
        st.text(max_size=40)
        | st.sampled_from([csv_line(), json_line(), "{\n", '"', "[" * 10_000, "\0", "{}\n"])
    ).map("".join)
)
def test_no_text_stops_the_reading(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    for first in ("", csv_line(), json_line(), f"2025-06-18 12:10:00 UTC [1] {FATAL}\n"):
        with suppress(NotALog):
            read(tmp_path_factory.getbasetemp(), first + text.replace("\ud800", ""))


def test_a_name_full_of_what_the_prefix_consists_of_hides_nothing(tmp_path: Path) -> None:
    prefix = "%t [%p]: user=%u,db=%d,app=%a,client=%h "
    hostile = "2025-06-18 12:10:00 UTC [1]: user=" + "a,db=,app=,client=" * 4_000 + "\n"
    told = f"2025-06-18 12:10:00 UTC [4711]: user=u,db=d,app=,client=,db=,client=10.2.0.7 {FATAL}\n"
    assert [ended.pid for ended in read(tmp_path, hostile + told, prefix=prefix)] == [4711]
