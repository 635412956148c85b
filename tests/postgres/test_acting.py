"""Terminating and cancelling: each outcome on a real server."""

from dataclasses import replace

import pytest

from reaper.policy.match import Match
from reaper.policy.plan import Result
from reaper.policy.rules import Action
from reaper.policy.session import ABORTED, ACTIVE, IN_TRANSACTION
from reaper.policy.time import SECOND, Duration
from reaper.postgres.terminator import DryRunTerminator

from .clients import Client, State
from .reaping import AT_ONCE, NOW, cancelling, now, policy
from .stage import Stage
from .waiting import until

RUNNING = Match(states=(ACTIVE,), running_for=NOW)
IDLE_IN_TRANSACTION = Match(states=(IN_TRANSACTION, ABORTED), idle_for=NOW, transaction_for=NOW)


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ("idle", AT_ONCE),
        ("idle in transaction", IDLE_IN_TRANSACTION),
        ("active", RUNNING),
    ],
)
def test_a_matched_session_is_terminated_and_confirmed_gone(stage: Stage, state: State, match: Match) -> None:
    client = stage.open(state=state)

    outcome = stage.reaper.act(stage.reaper.chosen(client, policy(stage.application, match)))

    assert outcome.result is Result.TERMINATED
    assert client.left()
    until(lambda: not client.alive())


def test_an_aborted_transaction_has_no_transaction_age_and_is_terminated_by_its_idle_age(
    stage: Stage,
) -> None:
    client = stage.open(state="idle in transaction (aborted)")
    aborted = policy(stage.application, Match(states=(ABORTED,), idle_for=NOW))

    outcome = stage.reaper.act(stage.reaper.chosen(client, aborted))

    assert outcome.result is Result.TERMINATED
    assert client.left()


def test_the_moment_of_an_outcome_is_the_servers(stage: Stage) -> None:
    client = stage.open()
    candidate = stage.reaper.chosen(client, policy(stage.application))

    outcome = stage.reaper.act(candidate)

    ((now,),) = stage.reaper.rows("SELECT pg_catalog.clock_timestamp()")
    assert outcome.at is not None
    assert candidate.session.state_change is not None
    assert candidate.session.state_change < outcome.at < now


@pytest.mark.parametrize("to", ["idle in transaction", "idle in transaction (aborted)", "active"])
def test_a_session_in_another_state_by_now_woke_and_is_not_touched(stage: Stage, to: State) -> None:
    client = stage.open()
    candidate = stage.reaper.chosen(client, policy(stage.application))
    client.enter(to)

    assert stage.reaper.act(candidate).result is Result.CHANGED
    assert client.state() == to
    assert client.alive()


def test_a_transaction_that_ended_and_began_anew_is_another_one(stage: Stage) -> None:
    client = stage.open(state="idle in transaction")
    candidate = stage.reaper.chosen(client, policy(stage.application, IDLE_IN_TRANSACTION))
    client.run("COMMIT")
    client.enter("idle in transaction")

    assert stage.reaper.act(candidate).result is Result.CHANGED
    assert client.alive()


def test_a_session_that_only_synchronised_woke(stage: Stage) -> None:
    client = stage.open()
    candidate = stage.reaper.chosen(client, policy(stage.application))
    with client.connection.pipeline() as pipeline:
        pipeline.sync()

    assert stage.reaper.act(candidate).result is Result.CHANGED
    session = stage.reaper.see(client)
    assert session.query_start == candidate.session.query_start
    assert session.state_change != candidate.session.state_change


def test_a_session_that_left_by_itself_is_gone(stage: Stage) -> None:
    client = stage.open()
    candidate = stage.reaper.chosen(client, policy(stage.application))
    client.close()
    until(client.left)

    outcome = stage.reaper.act(candidate)

    assert (outcome.result, outcome.detail) == (Result.GONE, "it had already exited")


def test_a_superuser_in_the_middle_is_denied_and_the_others_are_terminated(stage: Stage) -> None:
    first, protected, last = stage.open(), stage.open_superuser(), stage.open()
    regardless = policy(stage.application, overrides=["superusers"])
    candidates = [stage.reaper.chosen(client, regardless) for client in (first, protected, last)]

    outcomes = [stage.reaper.act(candidate) for candidate in candidates]

    assert [outcome.result for outcome in outcomes] == [Result.TERMINATED, Result.DENIED, Result.TERMINATED]
    assert "SQLSTATE 42501" in str(outcomes[1].detail)
    assert protected.alive()
    assert first.left()
    assert last.left()


def test_without_the_right_to_signal_the_outcome_is_denied(stage: Stage) -> None:
    client = stage.open()
    seeing = stage.open_reaper(stage.sandbox.role("seeing", member_of=["pg_read_all_stats"]))

    outcome = seeing.act(seeing.chosen(client, policy(stage.application)))

    assert outcome.result is Result.DENIED
    assert client.alive()


def test_a_right_that_was_revoked_meanwhile_is_denied(stage: Stage) -> None:
    client = stage.open()
    candidate = stage.reaper.chosen(client, policy(stage.application))
    stage.admin.execute(f'REVOKE pg_signal_backend FROM "{stage.role.name}"'.encode())

    assert stage.reaper.act(candidate).result is Result.DENIED
    assert client.alive()


def test_a_session_that_became_hidden_is_unknown_and_not_gone(stage: Stage) -> None:
    client = stage.open()
    candidate = stage.reaper.chosen(client, policy(stage.application))
    stage.admin.execute(f'REVOKE pg_read_all_stats FROM "{stage.role.name}"'.encode())

    outcome = stage.reaper.act(candidate)

    assert outcome.result is Result.UNKNOWN
    assert "lost pg_read_all_stats" in str(outcome.detail)
    assert client.alive()


def test_a_cancelled_statement_ends_and_its_session_remains(stage: Stage) -> None:
    client = stage.open(state="active")

    outcome = stage.reaper.act(stage.reaper.chosen(client, cancelling(stage.application)))

    assert outcome.result is Result.CANCELLED
    assert client.finish() == "57014"
    assert client.alive()


def test_a_statement_that_ended_before_its_cancellation_woke(stage: Stage) -> None:
    client = stage.open(state="active")
    candidate = stage.reaper.chosen(client, cancelling(stage.application))
    stage.admin.execute("SELECT pg_cancel_backend(%s)", (client.pid,))
    assert client.finish() == "57014"
    client.start("SELECT pg_sleep(3600)")

    assert stage.reaper.act(candidate).result is Result.CHANGED
    assert client.state() == "active"


def test_a_dry_run_says_what_it_would_do_and_touches_no_session(stage: Stage) -> None:
    idle, active = stage.open(), stage.open(state="active", application=stage.sandbox.name("batch"))
    rehearsal = DryRunTerminator()
    candidates = [
        stage.reaper.chosen(idle, policy(stage.application)),
        stage.reaper.chosen(active, cancelling(stage.sandbox.name("batch"))),
    ]

    outcomes = [
        stage.reaper.do(rehearsal.terminate(candidate, answered_at=now())) for candidate in candidates
    ]

    assert [(outcome.result, outcome.detail) for outcome in outcomes] == [
        (Result.DRY_RUN, "dry run: would terminate"),
        (Result.DRY_RUN, "dry run: would cancel"),
    ]
    assert stage.reaper.see(idle).state_change == candidates[0].session.state_change
    assert active.state() == "active"


def test_a_running_statement_that_holds_an_advisory_lock_by_now_is_not_touched(stage: Stage) -> None:
    holder = stage.open()
    holder.start("SELECT pg_advisory_lock(4711), pg_sleep(60)")
    until(lambda: locks_of(stage, holder))
    terminating = replace(cancelling(stage.application), action=Action.TERMINATE)
    matched = stage.reaper.chosen(holder, replace(terminating, overrides=frozenset({"advisory-locks"})))

    outcome = stage.reaper.act(replace(matched, policy=terminating))

    assert (outcome.result, outcome.detail) == (Result.CHANGED, "it has taken an advisory lock")
    assert holder.state() == "active"


def locks_of(stage: Stage, client: Client) -> bool:
    return client.pid in (stage.reaper.look().facts.advisory_lock_holders or ())


def test_an_act_that_the_server_reaches_too_late_is_not_done(stage: Stage) -> None:
    client = stage.open()
    candidate = stage.reaper.chosen(client, policy(stage.application))

    late = stage.reaper.signal(candidate, answered_ago=Duration(16 * SECOND))

    assert late.result is Result.WITHDRAWN
    assert str(late.detail).startswith("the statement ran more than 15 s after the decision")
    assert client.present()
    assert stage.reaper.signal(candidate, answered_ago=Duration(14 * SECOND)).result is Result.SIGNALLED


def test_each_of_several_acts_has_an_outcome_of_its_own(stage: Stage) -> None:
    sleeper, superuser, woken, left, last = (
        stage.open(),
        stage.open_superuser(),
        stage.open(),
        stage.open(),
        stage.open(),
    )
    regardless = policy(stage.application, overrides=["superusers"])
    clients = (sleeper, superuser, woken, left, last)
    candidates = [stage.reaper.chosen(client, regardless) for client in clients]
    woken.wake()
    left.close()
    until(left.left)

    results = [stage.reaper.signal(candidate).result for candidate in candidates]

    assert results == [Result.SIGNALLED, Result.DENIED, Result.CHANGED, Result.GONE, Result.SIGNALLED]
    assert superuser.alive()
    assert woken.alive()
    until(lambda: sleeper.left() and last.left())
