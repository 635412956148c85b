"""The judge finds every difference between the logs, and every wrong termination."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.lab.clients.session import SessionAccount, SessionKey, Use
from tests.lab.report import at_most

from .logs import INTENT, OUTCOME, AuditLog, LoggedIntent, TerminationByServer, terminations
from .terminations import Findings, Judgement, judge

BEGAN: Final = datetime(2026, 11, 20, 10, tzinfo=UTC)
KEY: Final = SessionKey(1_700_000_000, 4711)
OTHER: Final = SessionKey(1_700_000_000, 4712)
USED: Final = 1_700_000_010_000_000
TERMINATION: Final = TerminationByServer(key=KEY, at=USED + 2_000_000, application="web")
SEEN: Final = datetime.fromtimestamp(1_700_000_011.5, tz=UTC)
SECOND: Final = timedelta(seconds=1)
ACT: Final = LoggedIntent(
    run="one", key=KEY, application="web", seen_at=SEEN, outcome="terminated", until=SEEN + SECOND
)


def account(
    *, limit: float | None = 1.5, waiting: bool = False, ended_at: float | None = 12.0
) -> SessionAccount:
    return SessionAccount(
        kind="leaked",
        limit=limit,
        pid=KEY.pid,
        began=KEY.began * 1_000_000,
        uses=[Use(10.0, 10.0, USED)],
        waiting=waiting,
        ended_at=ended_at,
        sqlstate="57P01",
    )


CLIENT: Final = account()


def found(
    termination: TerminationByServer = TERMINATION, client: SessionAccount = CLIENT, *acts: LoggedIntent
) -> Findings:
    log = AuditLog(intents={str(number): act for number, act in enumerate(acts or [ACT])})
    return judge([termination], [client], log)


def decided(termination: TerminationByServer, client: SessionAccount, act: LoggedIntent = ACT) -> Judgement:
    (case,) = found(termination, client, act).cases
    return case.judgement


def has_intent(termination: TerminationByServer, client: SessionAccount, act: LoggedIntent) -> bool:
    return not found(termination, client, act).unannounced


def entries(*acts: tuple[int, str | None]) -> list[bytes]:
    """The lines of one run: for each session an intent, or its outcome."""
    now = str(BEGAN)
    common: dict[str, Any] = {"run": "r", "mode": "enforce", "dry_run": False, "time": now}
    common |= {"backend_start": now, "server_time": now}
    lines = [
        {**common, "event": OUTCOME if outcome else INTENT, "seq": seq, "intent": str(pid), "pid": pid}
        | {"application": f"app.{pid}", "outcome": outcome}
        for seq, (pid, outcome) in enumerate(acts, start=1)
    ]
    return [json.dumps(line).encode() for line in lines]


COMPLETE: Final = ((1, None), (1, "terminated"), (2, None), (2, "unknown"))


@pytest.mark.parametrize(
    ("acts", "pids", "expected"),
    [
        (COMPLETE, (1,), ""),
        (COMPLETE, (1, 2), ""),
        (COMPLETE, (1, 3), "1 terminated without an intent: ['app.3']"),
        (COMPLETE, (), "1 terminated by the audit log, and not by the server's: ['app.1']"),
        (COMPLETE[:3], (1,), "1 intents without an outcome"),
        (
            (*COMPLETE[:3], (2, "changed")),
            (1, 2),
            "1 terminated by the server's log, and not by the audit log",
        ),
    ],
)
def test_an_audit_log_agrees_with_the_server_or_the_difference_is_found(
    acts: tuple[tuple[int, str | None], ...], pids: tuple[int, ...], expected: str
) -> None:
    keys = {pid: SessionKey(int(BEGAN.timestamp()), pid) for pid in pids}
    ended = [TerminationByServer(key=key, at=0, application=f"app.{pid}") for pid, key in keys.items()]
    differences = AuditLog.of(entries(*acts)).disagreements(ended)
    assert differences[0].startswith(expected) if expected else not differences


def test_lines_that_are_torn_or_missing_are_counted() -> None:
    lines = entries(*COMPLETE, (3, None), (4, None), (4, "terminated"))
    log = AuditLog.of([*lines[:4], b'{"event": "session.int', lines[6]])
    assert (log.torn, log.missing) == (1, 2)


def test_an_intent_whose_outcome_a_later_run_wrote_is_orphaned() -> None:
    lines = entries((1, None), (1, "unknown"))
    log = AuditLog.of([lines[0], lines[1].replace(b'"run": "r"', b'"run": "s"')])
    assert [intent.orphaned for intent in log.intents.values()] == [True]


def test_a_termination_of_a_session_that_was_unused_for_its_limit_is_right() -> None:
    assert decided(TERMINATION, account()) is Judgement.RIGHT
    assert found().unannounced == []
    assert found().client_losses == 1


@pytest.mark.parametrize(
    ("termination", "client"),
    [
        (TERMINATION, account(limit=2.1)),
        (TERMINATION, account(limit=None)),
        (replace(TERMINATION, key=OTHER), account()),
        (replace(TERMINATION, executing=True), account(limit=2.1, waiting=True)),
    ],
    ids=["used a moment before", "protected", "of no client", "executing within its limit"],
)
def test_a_wrong_termination_is_found(termination: TerminationByServer, client: SessionAccount) -> None:
    assert decided(termination, client) is Judgement.WRONG


def test_a_statement_on_its_way_has_crossed_the_signal_and_one_that_had_begun_was_executing() -> None:
    assert decided(TERMINATION, account(waiting=True)) is Judgement.CROSSED
    assert decided(replace(TERMINATION, executing=True), account(waiting=True)) is Judgement.EXECUTING


def test_a_session_that_was_overdue_at_the_check_and_woke_before_the_signal_has_crossed_it() -> None:
    def woke(checked: datetime | None, rested: float = 2.6) -> Judgement:
        uses = [Use(7.4, 7.4, USED - round(rested * 1_000_000)), Use(10.0, 10.0, USED)]
        client = replace(account(limit=2.5), uses=uses)
        return decided(TERMINATION, client, replace(ACT, checked_again=checked))

    used = datetime.fromtimestamp(USED / 1_000_000, tz=UTC)
    assert woke(used) is Judgement.CROSSED
    assert woke(used + timedelta(microseconds=1)) is Judgement.WRONG
    assert woke(used, rested=2.4) is Judgement.WRONG
    assert woke(None) is Judgement.WRONG


def test_when_the_servers_clock_was_set_only_the_clock_of_the_client_counts() -> None:
    ahead = replace(TERMINATION, at=TERMINATION.at + 7_200_000_000)
    assert decided(ahead, account(ended_at=10.5)) is Judgement.WRONG
    assert decided(ahead, account(ended_at=12.0)) is Judgement.RIGHT


def test_a_termination_without_an_intent_before_it_is_found() -> None:
    assert not has_intent(TERMINATION, CLIENT, replace(ACT, key=OTHER))
    assert not has_intent(TERMINATION, CLIENT, replace(ACT, seen_at=SEEN + SECOND))


def test_an_intent_without_an_outcome_is_found() -> None:
    left_open = replace(ACT, outcome=None, until=None)
    assert found(TERMINATION, CLIENT, left_open).open_intents == [left_open]


def test_two_runs_that_act_at_once_are_found_and_two_that_follow_each_other_are_not() -> None:
    overlapping = replace(ACT, run="two", seen_at=SEEN + SECOND / 2)
    later = replace(ACT, run="two", seen_at=SEEN + SECOND)
    assert found(TERMINATION, CLIENT, ACT, overlapping).overlaps == [(ACT, overlapping)]
    assert found(TERMINATION, CLIENT, ACT, later).overlaps == []
    assert found(TERMINATION, CLIENT, ACT, replace(overlapping, run="one")).overlaps == []


@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(hours=-2)])
def test_an_act_during_which_the_servers_clock_was_set_is_not_a_long_one(step: timedelta) -> None:
    until, minutes = SEEN + step + SECOND, SEEN + timedelta(minutes=9)
    stepped = replace(ACT, until=until, checked_again=SEEN + step)
    afterwards = replace(ACT, run="two", seen_at=minutes, until=minutes)
    meanwhile = replace(ACT, run="two", seen_at=until - SECOND / 2, until=until)
    assert found(TERMINATION, CLIENT, stepped, afterwards).overlaps == []
    assert found(TERMINATION, CLIENT, stepped, meanwhile).overlaps == [(stepped, meanwhile)]


def test_when_the_servers_clock_was_set_back_before_the_act_the_clock_of_the_host_counts() -> None:
    now, at = time.time(), time.monotonic()
    back = replace(TERMINATION, at=TERMINATION.at - 7_200_000_000)
    client = replace(account(), uses=[Use(at - 3, at - 3, USED)], ended_at=at)
    assert has_intent(back, client, replace(ACT, written=now - 1))
    assert not has_intent(back, client, replace(ACT, written=now + 1))


def row(
    second: float,
    session: str,
    state: str = "57P01",
    message: str = "terminating connection due to administrator command",
    *,
    kind: str = "client backend",
    query: str = "",
) -> str:
    cells = [""] * 26
    cells[0] = f"2026-11-20 10:00:{second:06.3f} UTC"
    cells[5], cells[11], cells[12], cells[13] = session, "FATAL", state, message
    cells[19], cells[22], cells[23] = query, "web", kind
    return ",".join(f'"{cell}"' for cell in cells) + "\n"


def test_terminations_are_read_from_the_log_and_a_shutdown_is_none(tmp_path: Path) -> None:
    log = tmp_path / "server.csv"
    log.write_text(
        row(1.345, "6553f100.1267")
        + row(2.4, "6553f100.1268", query="SELECT\n1")
        + row(2.5, "6553f000.1", "00000", "received fast shutdown request", kind="postmaster")
        + row(2.501, "6553f100.1269")
        + row(3, "6553f000.2", "00000", "database system is ready to accept connections", kind="postmaster")
        + row(3.1, "6553f100.126a", kind="walsender")
        + row(3.2, "6553f100.126c", "57P05", "terminating connection due to idle-session timeout")
        + row(4, "6553f100.126b")
        + "2026-11-20 10:00:05"
    )
    first, executing, after = terminations(log)
    at = round(BEGAN.timestamp() * 1_000_000) + 1_345_999
    assert first == TerminationByServer(key=SessionKey(0x6553F100, 0x1267), at=at, application="web")
    assert (executing.key.pid, executing.executing) == (0x1268, True)
    assert after.key.pid == 0x126B


@pytest.mark.parametrize(
    ("hits", "of", "share"), [(0, 100_000, 3.0e-5), (10, 100_000, 17.0e-5), (1_000, 10_000, 0.1053)]
)
def test_a_share_is_bounded_as_in_the_tables_of_poisson(hits: int, of: int, share: float) -> None:
    assert at_most(hits, of) == pytest.approx(share, rel=0.015)
