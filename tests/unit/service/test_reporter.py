"""What happens at a server is logged each time, and notified once."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from reaper.audit.sinks import AuditLogFailed
from reaper.policy.memory import Memory
from reaper.policy.plan import Outcome, Result
from reaper.policy.rules import Policy, SafetyLimit
from reaper.policy.session import Snapshot
from reaper.policy.time import SECOND, Duration
from reaper.postgres.leadership import Holder
from reaper.service.cycle import Cycle
from reaper.service.reporter import Reporter
from tests.unit.policy.build import NOW, plan, policy, session, sessions, snapshot
from tests.unit.telemetry.test_metrics import key, numbers

from .build import Reports

OURS = Holder(pid=7, role="reaper", application="pg-reaper", database="db", ours=True)
FOREIGN = Holder(pid=8, role="app", application="web", database="db", ours=False)
CAREFUL = replace(policy(), safety_limit=SafetyLimit(share=0.1, above=1))
DISK_FULL = AuditLogFailed(where="audit.jsonl", why="No space left on device")


class Reported:
    """A reporter of one server, and what it reported."""

    def __init__(self) -> None:
        self.reports = Reports()
        self.reporter = Reporter(
            "orders", log=self.reports.log, metrics=self.reports.metrics, notifier=self.reports.notifier
        )
        self.memory = Memory()

    def cycle(
        self,
        observed: Snapshot,
        *policies: Policy,
        results: Sequence[Result] = (),
        audit_log_failed: AuditLogFailed | None = None,
        clock_step: Duration | None = None,
    ) -> None:
        decided = plan(observed, *policies)
        outcomes = [Outcome(result=result, at=NOW) for result in results]
        cycle = Cycle(
            name="1",
            snapshot=observed,
            plan=decided,
            settled=tuple(zip(decided.candidates, outcomes, strict=True)) if results else (),
            memory=self.memory,
            audit_log_failed=audit_log_failed,
            clock_step=clock_step,
        )
        self.memory = cycle.remembered
        self.reporter.cycled(cycle, took=0.01)

    def logged(self, event: str) -> list[str]:
        return [str(line.get("why")) for line in self.reports.lines(event)]

    @property
    def levels(self) -> list[str]:
        return [line["level"] for line in self.reports.logged]

    @property
    def notified(self) -> list[str]:
        return self.reports.notified


@pytest.fixture
def reported() -> Reported:
    return Reported()


def test_a_leader_is_logged_once_until_it_changes_and_a_foreign_session_as_an_error_with_its_fix(
    reported: Reported,
) -> None:
    for holder in (OURS, OURS, FOREIGN, FOREIGN, OURS, None):
        reported.reporter.stands_by(holder)
    expected = [str(OURS), str(FOREIGN), str(OURS), "another reaper leads"]
    assert reported.logged("leader.standby") == expected
    assert reported.levels == ["info", "error", "info", "info"]
    assert "SELECT pg_terminate_backend(8);" in expected[1]
    assert reported.notified == [f"orders: {FOREIGN}"]


def test_a_leader_is_logged_again_after_a_new_connection(reported: Reported) -> None:
    reported.reporter.stands_by(OURS)
    reported.reporter.disconnected()
    reported.reporter.stands_by(OURS)
    assert len(reported.logged("leader.standby")) == 2


def test_a_lead_is_logged_and_a_second_leader_is_a_warning_with_its_fix(reported: Reported) -> None:
    reported.reporter.leads(None)
    reported.reporter.leads(OURS)
    assert reported.levels == ["info", "info", "warning"]
    (line,) = reported.reports.lines("leader.twice")
    assert line["why"] == "another reaper leads this server through database 'db': pid 7"
    assert line["hint"] == "let all reapers of a server connect to the same database"
    assert numbers(reported.reports.metrics)[key("pg_reaper_leader", server="orders")] == 1


@pytest.mark.parametrize("state", ["unreachable", "denied"])
def test_a_lost_server_is_logged_at_every_attempt_and_notified_once_per_cause(
    reported: Reported, state: str
) -> None:
    for why in ("no route", "no route", "timeout", "timeout"):
        reported.reporter.lost(why, refused=state == "denied", retry="in 1.0s")
    assert reported.logged(f"server.{state}") == ["no route", "no route", "timeout", "timeout"]
    assert reported.notified == [f"orders: {state}: no route", f"orders: {state}: timeout"]


def failed_cycle(reported: Reported) -> None:
    reported.reporter.failed(DISK_FULL)


def unwritten_outcomes(reported: Reported) -> None:
    reported.cycle(snapshot(), audit_log_failed=DISK_FULL)


@pytest.mark.parametrize("fail", [failed_cycle, unwritten_outcomes])
def test_a_failing_audit_log_is_logged_at_every_cycle_and_notified_once_until_a_cycle_succeeds(
    reported: Reported, fail: Callable[[Reported], None]
) -> None:
    for _ in range(3):
        fail(reported)
    assert len(reported.logged("audit.failed")) == 3
    assert reported.notified == [f"orders: {DISK_FULL}"]
    reported.cycle(snapshot())
    fail(reported)
    assert len(reported.notified) == 2


def test_unreadable_sessions_are_logged_at_every_cycle_and_notified_once_until_they_are_readable(
    reported: Reported,
) -> None:
    unreadable = replace(snapshot(), unreadable=3)
    for observed in (unreadable, unreadable, snapshot(), unreadable):
        reported.cycle(observed)
    assert len(reported.logged("server.unreadable")) == 3
    assert reported.notified == ["orders: 3 sessions hide their state and are skipped"] * 2


def test_an_exceeded_safety_limit_is_logged_and_notified_once_until_it_is_no_longer_exceeded(
    reported: Reported,
) -> None:
    many = snapshot(*sessions(8))
    for observed in (many, many, snapshot(), many):
        reported.cycle(observed, CAREFUL)
    assert len(reported.logged("policy.safety_limit")) == len(reported.notified) == 2
    assert all(line.startswith("orders: leaked: ") for line in reported.notified)


@pytest.mark.parametrize("result", Result)
def test_an_outcome_is_notified_if_a_session_was_signalled_or_may_have_been(
    reported: Reported, result: Result
) -> None:
    reported.cycle(snapshot(session(4711)), policy(), results=[result])
    signalled = {Result.TERMINATED, Result.CANCELLED, Result.SIGNALLED, Result.DENIED, Result.UNKNOWN}
    assert bool(reported.notified) == (result in signalled)
    assert all(line.startswith(f"orders: {result.value} pid 4711 ") for line in reported.notified)


def test_a_cycle_is_logged_with_its_counts_and_one_without_outcomes_only_for_debugging(
    reported: Reported,
) -> None:
    reported.cycle(snapshot())
    results = [Result.TERMINATED, Result.CHANGED]
    reported.cycle(snapshot(session(101), session(102)), policy(), results=results)
    quiet, *sessions_, acted = reported.reports.logged
    assert [(line["event"], line["level"], line["outcome"]) for line in sessions_] == [
        ("session.outcome", "info", "terminated"),
        ("session.outcome", "debug", "changed"),
    ]
    assert (quiet["event"], quiet["level"]) == ("cycle.quiet", "debug")
    assert (acted["event"], acted["level"]) == ("cycle.acted", "info")
    assert (acted["terminated"], acted["changed"], acted["slots_used"]) == (1, 1, 10)


def test_each_outcome_is_one_line_with_the_session_its_age_and_the_limit(reported: Reported) -> None:
    one = session(4711)
    reported.cycle(snapshot(one), policy(), results=[Result.TERMINATED])
    line = reported.reports.logged[0]
    identity = one.identity._asdict()
    assert {key: line[key] for key in identity} == identity
    assert (line["server"], line["pid"], line["policy"]) == ("orders", 4711, "leaked")
    assert line["criterion"] == "idle_for"
    assert line["age_s"] >= line["limit_s"] > 0


@pytest.mark.parametrize("in_a_cycle", [True, False])
def test_a_jump_of_the_servers_clock_is_logged_and_counted(reported: Reported, *, in_a_cycle: bool) -> None:
    jump = Duration(-7_200 * SECOND)
    if in_a_cycle:
        reported.cycle(snapshot(), clock_step=jump)
    else:
        reported.reporter.clock_stepped(jump)
    (line,) = reported.reports.lines("clock.stepped")
    assert (line["level"], line["by"]) == ("warning", "-2h")
    assert numbers(reported.reports.metrics)[key("pg_reaper_clock_steps_total", server="orders")] == 1


def test_the_totals_count_cycles_failures_and_outcomes_by_policy(reported: Reported) -> None:
    results = [Result.TERMINATED, Result.CHANGED]
    for name in ("a", "b"):
        reported.cycle(snapshot(session(101), session(102)), policy(name), results=results)
    reported.cycle(snapshot(*sessions(8)), CAREFUL)
    reported.reporter.failed(DISK_FULL)
    totals = reported.reporter.totals
    assert (totals.cycles, totals.trips, totals.failures) == (3, 1, 1)
    assert totals.results == {(name, result): 1 for name in ("a", "b") for result in results}
    assert totals.by_result == {"terminated": 2, "changed": 2}
