"""What happens is logged each time, and told to people once."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from reaper.audit.sinks import AuditLogFailed
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Outcome, Result
from reaper.policy.rules import Policy, SafetyLimit
from reaper.policy.session import Snapshot
from reaper.policy.time import SECOND, Duration
from reaper.postgres.leadership import Holder
from reaper.service.cycle import Cycle
from reaper.service.reporter import Reporter, RunTotals
from tests.unit.policy.build import NOW, plan, policy, sessions, snapshot
from tests.unit.policy.build import session as told_session
from tests.unit.telemetry.test_metrics import key, numbers

from .build import Ears

OURS = Holder(pid=7, role="reaper", application="pg-reaper", database="db", ours=True)
STRANGER = Holder(pid=8, role="app", application="web", database="db", ours=False)
CAREFUL = replace(policy(), safety_limit=SafetyLimit(share=0.1, above=1))
DISK_FULL = AuditLogFailed(where="audit.jsonl", why="No space left on device")


class Told:
    """A bulletin of one server, and what came of it."""

    def __init__(self) -> None:
        self.ears = Ears()
        self.reporter = Reporter(
            "orders", log=self.ears.log, metrics=self.ears.metrics, notifier=self.ears.notifier
        )

        self.memory = Memory()

    def cycled(
        self,
        seen: Snapshot,
        *policies: Policy,
        results: Sequence[Result] = (),
        audit_log_failed: AuditLogFailed | None = None,
        clock_step: Duration | None = None,
    ) -> Cycle:
        decided = plan(seen, *policies)
        outcomes = [Outcome(result=result, at=NOW) for result in results]
        settled: list[tuple[Candidate, Outcome]] = (
            list(zip(decided.candidates, outcomes, strict=True)) if results else []
        )
        cycle = Cycle(
            name="1",
            snapshot=seen,
            plan=decided,
            settled=tuple(settled),
            memory=self.memory,
            audit_log_failed=audit_log_failed,
            clock_step=clock_step,
        )
        self.memory = cycle.remembered
        self.reporter.cycled(cycle, took=0.01)
        return cycle

    def logged(self, event: str) -> list[str]:
        return [str(line.get("why")) for line in self.ears.lines(event)]

    @property
    def levels(self) -> list[str]:
        return [line["level"] for line in self.ears.logged]

    @property
    def waiting(self) -> list[str]:
        return self.ears.waiting


def test_a_holder_is_told_once_however_often_it_is_met() -> None:
    told = Told()
    for _ in range(3):
        told.reporter.stands_by(OURS)
    assert told.logged("leader.standby") == [str(OURS)]
    assert told.levels == ["info"]


def test_another_holder_is_told_anew_and_a_stranger_as_an_error_with_the_cure() -> None:
    told = Told()
    for holder in (OURS, STRANGER, STRANGER, OURS):
        told.reporter.stands_by(holder)
    assert told.logged("leader.standby") == [str(OURS), str(STRANGER), str(OURS)]
    assert told.levels == ["info", "error", "info"]
    assert "SELECT pg_terminate_backend(8);" in told.logged("leader.standby")[1]
    assert told.waiting == [f"orders: {STRANGER}"]


def test_a_holder_is_told_again_on_a_new_connection() -> None:
    told = Told()
    told.reporter.stands_by(OURS)
    told.reporter.disconnected()
    told.reporter.stands_by(OURS)
    assert len(told.logged("leader.standby")) == 2


def test_a_lead_is_told_and_a_second_one_beside_it_is_a_warning_with_the_cure() -> None:
    told = Told()
    told.reporter.leads(None)
    told.reporter.leads(OURS)
    assert told.levels == ["info", "info", "warning"]
    (line,) = told.ears.lines("leader.twice")
    assert (line["why"], line["fix"]) == (
        "another reaper leads this server through database 'db': pid 7",
        "let all reapers of a server connect to the same database",
    )
    assert told.reporter._metrics.leads


def test_a_lock_that_was_just_let_go_is_told_without_a_name() -> None:
    told = Told()
    told.reporter.stands_by(None)
    assert told.logged("leader.standby") == ["another reaper leads"]


@pytest.mark.parametrize(
    ("refused", "event", "words"),
    [(False, "server.unreachable", "unreachable"), (True, "server.denied", "denied")],
)
def test_trouble_is_logged_at_every_attempt_and_notified_once(
    event: str, words: str, *, refused: bool
) -> None:
    told = Told()
    for _ in range(3):
        told.reporter.lost("connection refused", refused=refused, retry="in 1.0s")
    assert told.logged(event) == ["connection refused"] * 3
    assert told.waiting == [f"orders: {words}: connection refused"]


def test_other_trouble_is_notified_anew() -> None:
    told = Told()
    for why in ("refused", "refused", "no route", "no route"):
        told.reporter.lost(why, refused=False, retry="in 1.0s")
    assert told.waiting == ["orders: unreachable: refused", "orders: unreachable: no route"]


def test_a_failing_record_is_logged_at_every_cycle_and_notified_once_until_a_cycle_goes_well() -> None:
    told = Told()
    for _ in range(3):
        told.reporter.failed(DISK_FULL)
    assert len(told.logged("audit.failed")) == 3
    assert told.waiting == [f"orders: {DISK_FULL}"]

    told.cycled(snapshot())
    told.reporter.failed(DISK_FULL)
    assert len(told.waiting) == 2
    assert told.reporter.totals.failures == 4


def test_outcomes_that_could_not_be_written_are_notified_once() -> None:
    told = Told()
    for _ in range(3):
        told.cycled(snapshot(), audit_log_failed=DISK_FULL)
    assert told.waiting == [f"orders: {DISK_FULL}"]
    assert len(told.logged("audit.failed")) == 3


def test_blindness_is_logged_at_every_look_and_notified_once_until_it_is_cured() -> None:
    told = Told()
    blind = replace(snapshot(), unreadable=3)
    for seen in (blind, blind, snapshot(), blind):
        told.cycled(seen)
    assert len(told.logged("server.unreadable")) == 3
    assert told.waiting == ["orders: 3 sessions hide their state and are skipped"] * 2


def test_a_brake_is_told_once_until_it_lets_go() -> None:
    told = Told()
    many = snapshot(*sessions(8))
    for seen in (many, many, snapshot(), many):
        told.cycled(seen, CAREFUL)
    assert len(told.logged("policy.safety_limit")) == 2
    assert len(told.waiting) == 2
    assert all(line.startswith("orders: leaked: ") for line in told.waiting)


@pytest.mark.parametrize("result", Result)
def test_what_became_of_a_session_is_notified_when_something_was_done_or_is_not_known(result: Result) -> None:
    told = Told()
    told.cycled(snapshot(told_session(4711)), policy(), results=[result])
    worth = {Result.TERMINATED, Result.CANCELLED, Result.SIGNALLED, Result.DENIED, Result.UNKNOWN}
    assert bool(told.waiting) == (result in worth)
    assert all(line.startswith(f"orders: {result.value} pid 4711 ") for line in told.waiting)


def test_quiet_cycles_are_quiet_and_others_say_what_they_did() -> None:
    told = Told()
    told.cycled(snapshot())
    told.cycled(
        snapshot(told_session(101), told_session(102)), policy(), results=[Result.TERMINATED, Result.CHANGED]
    )
    quiet, acted = told.ears.logged
    assert (quiet["event"], quiet["level"]) == ("cycle.quiet", "debug")
    assert (acted["event"], acted["level"]) == ("cycle.acted", "info")
    assert (acted["terminated"], acted["changed"], acted["slots"]) == (1, 1, "10/103")


def test_a_clock_that_jumped_is_told_with_its_size() -> None:
    told = Told()
    told.cycled(snapshot(), clock_step=Duration(7_200 * SECOND))
    (line,) = told.ears.lines("clock.stepped")
    assert (line["level"], line["by"]) == ("warning", "2h")


def test_a_clock_that_jumped_while_no_cycle_looked_is_told_and_counted_too() -> None:
    told = Told()
    told.reporter.clock_stepped(Duration(-7_200 * SECOND))
    (line,) = told.ears.lines("clock.stepped")
    assert (line["level"], line["by"]) == ("warning", "-2h")
    assert numbers(told.ears.metrics)[key("reaper_clock_steps_total", server="orders")] == 1


def test_the_tally_counts_by_policy_and_result() -> None:
    told = Told()
    told.cycled(
        snapshot(told_session(101), told_session(102)), policy(), results=[Result.TERMINATED, Result.CHANGED]
    )
    told.cycled(snapshot(*sessions(8)), CAREFUL)
    totals = told.reporter.totals
    assert (totals.cycles, totals.trips, totals.failures) == (2, 1, 0)
    assert totals.results == {("leaked", Result.TERMINATED): 1, ("leaked", Result.CHANGED): 1}
    assert totals.by_result == {"terminated": 1, "changed": 1}


def test_a_tally_adds_up_over_policies() -> None:
    totals = RunTotals()
    totals.results.update({("a", Result.GONE): 2, ("b", Result.GONE): 3, ("b", Result.CHANGED): 1})
    assert totals.by_result == {"gone": 5, "changed": 1}
