"""The guard: the state on which the decision relied must be unchanged at the moment of the signal."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import pytest
from psycopg.pq import PGconn, abc

from reaper.policy.match import Match
from reaper.policy.plan import Candidate, Result
from reaper.policy.session import ACTIVE, CLIENT_BACKEND, IDLE, IN_TRANSACTION, Session
from reaper.policy.time import Timestamp
from reaper.postgres.terminator import GUARDS, guard_parameters

from .reaping import AT_ONCE, DAY, NOW, Reaper, now, policy
from .stage import Stage
from .waiting import until

IDLE_IN_TRANSACTION: Final = Match(states=(IN_TRANSACTION,), idle_for=NOW, transaction_for=NOW)
FLOOD: Final = "SELECT count(pg_notify(%s, g || repeat('x', 7900))) FROM generate_series(1, 4000) AS g"
WAITS_FOR: Final = "SELECT wait_event, state FROM pg_stat_activity WHERE pid = %s"


def later(instant: Timestamp | None) -> Timestamp:
    assert instant is not None
    return Timestamp(instant + 1)


Decided = Callable[[Session], Session]

OTHERWISE: Final[Mapping[str, Decided]] = {
    "another backend_start": lambda s: replace(s, id=s.id._replace(backend_start=later(s.id.backend_start))),
    "another role": lambda s: replace(s, role_oid=10),
    "another state": lambda s: replace(s, state=IDLE),
    "another state_change": lambda s: replace(s, state_change=later(s.state_change)),
    "another query_start": lambda s: replace(s, query_start=later(s.query_start)),
    "no query_start": lambda s: replace(s, query_start=None),
    "another xact_start": lambda s: replace(s, xact_start=later(s.xact_start)),
    "no xact_start": lambda s: replace(s, xact_start=None),
}


@pytest.mark.parametrize("decided", OTHERWISE.values(), ids=list(OTHERWISE))
def test_a_session_that_differs_in_one_thing_from_the_decision_is_not_touched(
    stage: Stage, decided: Decided
) -> None:
    client = stage.open(state="idle in transaction")
    candidate = stage.reaper.chosen(client, policy(stage.application, IDLE_IN_TRANSACTION))

    outcome = stage.reaper.act(replace(candidate, session=decided(candidate.session)))

    assert outcome.result in {Result.CHANGED, Result.GONE}
    assert client.present()
    assert stage.reaper.act(candidate).result is Result.TERMINATED


def test_a_pid_that_was_used_again_is_gone_and_its_new_session_is_never_touched(stage: Stage) -> None:
    client = stage.open()
    candidate = stage.reaper.chosen(client, policy(stage.application))
    earlier = candidate.session.id._replace(backend_start=Timestamp(candidate.session.id.backend_start - 1))

    outcome = stage.reaper.act(replace(candidate, session=replace(candidate.session, id=earlier)))

    assert (outcome.result, outcome.detail) == (Result.GONE, "it had already exited")
    assert client.alive()


def test_a_replication_connection_at_a_clients_pid_is_not_touched(stage: Stage) -> None:
    role = stage.sandbox.role("standby", options="REPLICATION")
    walsender = stage.open(dsn=f"{role.dsn} replication=database")
    candidate = stage.reaper.chosen(walsender, policy(stage.application, overrides=["replication"]))

    outcome = stage.reaper.act(replace(candidate, session=replace(candidate.session, kind=CLIENT_BACKEND)))

    assert outcome.result is Result.CHANGED
    assert walsender.present()


TOO_YOUNG: Final[Mapping[str, Match]] = {
    "idle_for": replace(IDLE_IN_TRANSACTION, idle_for=DAY),
    "transaction_for": replace(IDLE_IN_TRANSACTION, transaction_for=DAY),
    "connected_for": replace(IDLE_IN_TRANSACTION, connected_for=DAY),
    "running_for": replace(IDLE_IN_TRANSACTION, running_for=DAY),
    "xmin_age": replace(IDLE_IN_TRANSACTION, xmin_age=1_000_000),
}


@pytest.mark.parametrize("match", TOO_YOUNG.values(), ids=list(TOO_YOUNG))
def test_a_session_that_has_not_reached_a_limit_at_the_moment_of_the_signal_is_not_touched(
    stage: Stage, match: Match
) -> None:
    client = stage.open(state="idle in transaction")
    client.run("SELECT txid_current()")
    candidate = stage.reaper.chosen(client, policy(stage.application, IDLE_IN_TRANSACTION))

    outcome = stage.reaper.act(replace(candidate, policy=replace(candidate.policy, match=match)))

    assert outcome.result is Result.CHANGED
    assert client.present()
    assert stage.reaper.act(candidate).result is Result.TERMINATED


def test_an_idle_session_to_which_the_server_is_sending_is_not_waiting_for_its_client(stage: Stage) -> None:
    client = stage.open()
    client.listen(stage.application)
    stage.admin.execute(FLOOD, (stage.application,))
    until(lambda: stage.admin.execute(WAITS_FOR, (client.pid,)).fetchone() == ("ClientWrite", "idle"))
    candidate = stage.reaper.decision(client, policy(stage.application, overrides=["listeners"]))
    assert isinstance(candidate, Candidate)

    assert stage.reaper.act(candidate).result is Result.CHANGED
    assert client.present()


def test_the_reapers_own_session_survives_even_a_decision_against_it(stage: Stage) -> None:
    (own,) = [s for s in stage.reaper.look().sessions if s.id.pid == stage.reaper.link.pid]
    against = policy("pg-reaper", Match(states=(ACTIVE,), running_for=NOW))

    outcome = stage.reaper.act(Candidate(session=own, policy=against, reason=""))

    assert outcome.result is Result.CHANGED
    assert stage.reaper.rows("SELECT 1") == [(1,)]


def test_the_plan_calls_the_signal_above_a_materialized_scan_of_one_pid(stage: Stage) -> None:
    candidate = stage.reaper.chosen(stage.open(), policy(stage.application))
    for action in GUARDS:
        to_do = replace(candidate, policy=replace(candidate.policy, action=action))
        plan = explained(stage.reaper, to_do)

        assert plan[0].startswith("CTE Scan on target")
        assert "pg_terminate_backend" in plan[1] or "pg_cancel_backend" in plan[1]
        assert plan[2].strip() == "CTE target"
        assert plan[3].strip().startswith("->  Function Scan on pg_catalog.pg_stat_get_activity")
        assert not any("_backend(" in line.replace("pg_backend_pid()", "") for line in plan[2:])
        # Other conditions imply these two; they must be there all the same.
        assert "(s.pid <> pg_backend_pid())" in plan[-1]
        assert "(s.pid = " in plan[-1]


def explained(reaper: Reaper, candidate: Candidate) -> list[str]:
    explain = "EXPLAIN (VERBOSE, COSTS OFF) " + GUARDS[candidate.action]
    return [line for (line,) in reaper.rows(explain, guard_parameters(candidate, now()))]


@pytest.mark.parametrize("times", [1, 12])
def test_no_bystander_is_signalled_however_often_the_guard_ran(stage: Stage, times: int) -> None:
    # From the sixth time on the server may choose a generic plan.
    bystanders = stage.open_many(10)
    matched = [stage.open() for _ in range(times)]
    candidates = [stage.reaper.chosen(client, policy(stage.application)) for client in matched]

    outcomes = [stage.reaper.act(candidate) for candidate in candidates]

    assert {outcome.result for outcome in outcomes} == {Result.TERMINATED}
    assert [client for client in bystanders if not client.present()] == []


def test_a_session_that_never_ran_a_query_is_guarded_too(stage: Stage) -> None:
    client = stage.open()
    pgconn = silent(stage)
    try:
        (quiet,) = [
            s
            for s in stage.reaper.look().sessions
            if s.id.pid == pgconn.backend_pid and s.query_start is None
        ]
        candidate = Candidate(session=quiet, policy=policy(stage.application, AT_ONCE), reason="")

        assert stage.reaper.act(candidate).result is Result.TERMINATED
        assert client.alive()
    finally:
        pgconn.finish()


def silent(stage: Stage) -> abc.PGconn:
    """A session that has said nothing since it logged in."""
    return PGconn.connect(f"{stage.app.dsn} application_name={stage.application}".encode())
