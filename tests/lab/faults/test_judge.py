"""The judge itself: it must find what it is there to find."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from .judge import Findings, Judgement, judge
from .records import Deed
from .server_log import Termination, Who, terminations
from .wire import Deposition

WHO: Final = Who(1_700_000_000, 4711)
TOLD: Final = 1_700_000_010_000_000
AFTER: Final = 2_000_000
TERMINATION: Final = Termination(who=WHO, at=TOLD + AFTER, application="web")
SINCE: Final = datetime.fromtimestamp(1_700_000_011.5, tz=UTC)
DEED: Final = Deed(
    run="one",
    cycle="1",
    who=WHO,
    application="web",
    since=SINCE,
    outcome="terminated",
    until=SINCE + timedelta(seconds=1),
)


def said(*, limit: float | None = 1.5, at_work: bool = False, ended_at: float | None = 12.0) -> Deposition:
    return Deposition(
        kind="leaked",
        limit=limit,
        pid=WHO.pid,
        began=WHO.began,
        told=TOLD,
        told_at=10.0,
        at_work=at_work,
        ended_at=ended_at,
        sqlstate="57P01",
    )


def found(
    termination: Termination = TERMINATION, heard: Deposition | None = None, *deeds: Deed, ours: bool = False
) -> Findings:
    by_others = {WHO} if ours else set()
    return judge([termination], [heard or said()], deeds or [DEED], by_others=by_others)


def judged(termination: Termination, heard: Deposition) -> Judgement:
    (case,) = found(termination, heard).cases
    return case.judgement


def test_a_session_that_was_left_alone_for_its_limit_deserved_it() -> None:
    assert judged(TERMINATION, said()) is Judgement.DESERVED
    assert found().unannounced == []
    assert found().losses == 1


@pytest.mark.parametrize(
    ("termination", "heard"),
    [
        (TERMINATION, said(limit=2.1)),
        (TERMINATION, said(limit=None)),
        (replace(TERMINATION, who=Who(1_700_000_000, 4712)), said()),
        (replace(TERMINATION, at_work=True), said(limit=2.1, at_work=True)),
    ],
    ids=["used a moment before", "never", "of nobody", "at work within its limit"],
)
def test_who_did_not_deserve_it_is_found(termination: Termination, heard: Deposition) -> None:
    assert judged(termination, heard) is Judgement.WRONG


def test_one_whose_next_statement_was_on_its_way_was_overtaken_and_one_that_had_begun_it_was_at_work() -> (
    None
):
    assert judged(TERMINATION, said(at_work=True)) is Judgement.OVERTAKEN
    assert judged(replace(TERMINATION, at_work=True), said(at_work=True)) is Judgement.AT_WORK


def test_one_that_was_overdue_until_the_act_had_looked_and_woke_before_the_signal_was_overtaken() -> None:
    heard = replace(said(limit=2.5), rested=2.6)
    told = datetime.fromtimestamp(TOLD / 1_000_000, tz=UTC)
    assert _overtaken(heard, told) is Judgement.OVERTAKEN
    assert _overtaken(heard, told + timedelta(microseconds=1)) is Judgement.WRONG
    assert _overtaken(replace(heard, rested=2.4), told) is Judgement.WRONG
    assert _overtaken(heard, None) is Judgement.WRONG


def _overtaken(heard: Deposition, looked: datetime | None) -> Judgement:
    (case,) = found(TERMINATION, heard, replace(DEED, inspect_again=looked)).cases
    return case.judgement


def test_when_the_servers_clock_was_stepped_only_the_client_is_believed() -> None:
    stepped = replace(TERMINATION, at=TERMINATION.at + 7_200_000_000)
    assert judged(stepped, said(ended_at=10.5)) is Judgement.WRONG
    assert judged(stepped, said(ended_at=12.0)) is Judgement.DESERVED


def test_a_termination_that_no_record_announced_is_found_unless_it_was_our_own() -> None:
    stranger = replace(DEED, who=Who(1_700_000_000, 4712))
    assert [case.termination.who for case in found(TERMINATION, said(), stranger).unannounced] == [WHO]
    afterwards = replace(DEED, since=DEED.since + timedelta(seconds=1))
    assert [case.termination.who for case in found(TERMINATION, said(), afterwards).unannounced] == [WHO]
    own = found(TERMINATION, said(), stranger, ours=True)
    assert (own.cases, own.by_others) == ([], 1)


def test_an_intent_without_an_outcome_is_found() -> None:
    open_one = replace(DEED, outcome=None, until=None)
    assert found(TERMINATION, said(), open_one).open_intents == [open_one]


def test_two_lives_that_act_at_once_are_found_and_two_that_follow_each_other_are_not() -> None:
    overlapping = replace(DEED, run="two", since=DEED.since + timedelta(seconds=0.5))
    later = replace(DEED, run="two", since=DEED.since + timedelta(seconds=1))
    assert found(TERMINATION, said(), DEED, overlapping).rivals == [(DEED, overlapping)]
    assert found(TERMINATION, said(), DEED, later).rivals == []
    assert found(TERMINATION, said(), DEED, replace(overlapping, run="one")).rivals == []


@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(hours=-2)])
def test_an_act_in_which_the_servers_clock_was_stepped_is_no_long_one(step: timedelta) -> None:
    until = SINCE + step + timedelta(seconds=1)
    stepped = replace(DEED, until=until, inspect_again=SINCE + step)
    afterwards = replace(
        DEED, run="two", since=SINCE + timedelta(minutes=9), until=SINCE + timedelta(minutes=9)
    )
    assert found(TERMINATION, said(), stepped, afterwards).rivals == []
    meanwhile = replace(DEED, run="two", since=until, until=until)
    assert found(TERMINATION, said(), stepped, meanwhile).rivals == []
    meanwhile = replace(meanwhile, since=until - timedelta(seconds=0.5))
    assert found(TERMINATION, said(), stepped, meanwhile).rivals == [(stepped, meanwhile)]


def test_when_the_servers_clock_was_set_back_before_the_act_the_clock_of_the_host_is_believed() -> None:
    now, at = time.time(), time.monotonic()
    back = replace(TERMINATION, at=TERMINATION.at - 7_200_000_000)
    heard = replace(said(), told_at=at - 3, ended_at=at)
    before, after = (replace(DEED, written=now + seconds) for seconds in (-1, 1))
    assert found(back, heard, before).unannounced == []
    assert [case.termination.who for case in found(back, heard, after).unannounced] == [WHO]


def test_when_the_clock_of_the_server_is_wrong_a_case_is_dated_by_its_client() -> None:
    before = time.time() - 1
    heard = replace(said(), told_at=time.monotonic() - 3, ended_at=time.monotonic())
    (case,) = found(replace(TERMINATION, at=TERMINATION.at + 86_400_000_000), heard).cases
    assert before < case.at < time.time() + 1


def test_the_log_tells_who_was_terminated_and_a_shutdown_is_nobodys_act(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    fatal = "57P01|client backend|web|FATAL:  terminating connection due to administrator command\n"
    log.write_text(
        f"1700000012.345|4711|6553f100.1267|{fatal}"
        f"1700000012.400|4712|6553f100.1268|{fatal}"
        "1700000012.400|4712|6553f100.1268|57P01|client backend|web|STATEMENT:  SELECT 1\n"
        "1700000012.500|1|6553f000.1|00000|postmaster||LOG:  received fast shutdown request\n"
        f"1700000012.501|4713|6553f100.1269|{fatal}"
        "1700000013.000|2|6553f000.2|00000|postmaster||LOG:  database system is ready to accept connections\n"
        "1700000013.100|4714|6553f100.126a|57P01|walsender|web|FATAL:  terminating connection\n"
        f"1700000014.000|4715|6553f100.126b|{fatal}"
    )
    first, at_work, after = terminations([log])
    assert first == Termination(
        who=Who(1_700_000_000, 0x1267), at=1_700_000_012_345_999, application="web", at_work=False
    )
    assert (at_work.who.pid, at_work.at_work) == (0x1268, True)
    assert after.who.pid == 0x126B
