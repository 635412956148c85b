"""A cycle on a real server: the audit log comes first, limits hold, a dry run decides the same."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from reaper.audit.events import INTENT, OUTCOME, SAFETY_LIMIT
from reaper.audit.file import FileSink
from reaper.audit.reader import open_intents
from reaper.audit.sinks import AuditLogFailed
from reaper.policy.plan import Candidate, Result, Skip, SkipReason
from reaper.policy.rules import Mode, SafetyLimit
from reaper.policy.session import SessionId
from reaper.postgres.terminator import DryRunTerminator
from reaper.service.clock import ClockWatch
from reaper.service.cycle import Cycle

from .clients import Client
from .post import Meddler, Post, ids, reaped, spared_by
from .reaping import cancelling, identity, policy
from .stage import Stage
from .waiting import until

KILLED: Final = "SELECT sessions_killed FROM pg_stat_database WHERE datname = %s"


@pytest.fixture
def post(stage: Stage, tmp_path: Path) -> Post:
    return Post(stage, tmp_path)


def test_what_a_cycle_did_is_in_the_record_intents_before_outcomes(post: Post) -> None:
    clients = post.stage.open_many(3)
    post.sight()

    cycle = post.cycle(policy(post.stage.application))

    assert cycle.results == {Result.TERMINATED: 3}
    assert [event.name for event in post.record()] == ["audit.opened", *[INTENT] * 3, *[OUTCOME] * 3]
    assert sorted(post.outcomes()) == sorted((client.pid, "terminated") for client in clients)
    assert open_intents(post.record()) == []
    assert all(client.left() for client in clients)


def test_each_act_is_timed_from_the_last_answer_of_the_server(post: Post) -> None:
    post.stage.open_many(2)
    post.sight()
    post.enforce = meddler = Meddler(post.stage.reaper.terminator)

    cycle = post.cycle(policy(post.stage.application))

    signalled = [outcome.act.signalled for _, outcome in cycle.settled if outcome.act]
    assert meddler.answered == [cycle.snapshot.at, min(signalled)]


def test_an_outcome_tells_when_the_act_looked_once_more_and_when_it_had_signalled(post: Post) -> None:
    post.stage.open()
    post.sight()

    post.cycle(policy(post.stage.application))

    (outcome,) = [event for event in post.record() if event.name == OUTCOME]
    moments = ("server_time", "looked_again_at", "signalled_at", "outcome_at")
    told = [datetime.fromisoformat(str(outcome.text(moment))) for moment in moments]
    assert told == sorted(told)
    assert told[0] < told[1] < told[2]


class Witness(FileSink):
    """Counts the present clients after each write."""

    def __init__(self, path: Path, clients: Sequence[Client]) -> None:
        super().__init__(path)
        self._clients = clients
        self.seen: list[tuple[int, int]] = []

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        super().write(lines, durable=durable)
        intents = sum(INTENT.encode() in line for line in lines)
        self.seen.append((intents if durable else 0, sum(client.present() for client in self._clients)))


def test_every_intent_is_durable_before_the_first_signal(stage: Stage, tmp_path: Path) -> None:
    clients = stage.open_many(4)
    witness = Witness(tmp_path / "audit.jsonl", clients)
    post = Post(stage, tmp_path, sink=witness)
    post.sight()

    post.cycle(policy(stage.application))

    assert (4, 4) in witness.seen
    assert [present for intents, present in witness.seen if intents == 0][-1] == 0


def test_when_the_audit_log_cannot_be_written_no_session_is_touched(stage: Stage, tmp_path: Path) -> None:
    clients = stage.open_many(3)
    post = Post(stage, tmp_path, sink=FileSink(tmp_path / "missing" / "audit.jsonl"))
    post.sight()

    with pytest.raises(AuditLogFailed, match="nothing is terminated until it can"):
        post.cycle(policy(stage.application))

    assert all(client.alive() for client in clients)


def test_when_the_record_fails_in_the_middle_the_rest_is_withdrawn(post: Post) -> None:
    first, *rest = post.stage.open_many(3)
    post.sight()
    folder = post.path.parent

    def wake_and_break() -> None:
        first.wake()
        folder.rename(folder.with_name("moved"))

    post.enforce = Meddler(post.stage.reaper.terminator, wake_and_break)
    cycle = post.cycle(policy(post.stage.application))

    assert cycle.results == {Result.CHANGED: 1, Result.WITHDRAWN: 2}
    assert cycle.audit_log_failed
    assert cycle.left_undone
    assert all(client.alive() for client in rest)
    folder.with_name("moved").rename(folder)
    post.ledger.flush()
    assert open_intents(post.record()) == []
    assert {outcome for _, outcome in post.outcomes()} == {"changed", "withdrawn"}


def test_when_the_reaper_is_stopped_in_the_middle_the_rest_is_withdrawn(post: Post) -> None:
    clients = post.stage.open_many(3)
    under_way, rest = clients[:1], clients[1:]
    post.sight()
    asked = iter([False])

    cycle = post.cycle(policy(post.stage.application), stopping=lambda: next(asked, True))

    assert {candidate.session.id: outcome.result for candidate, outcome in cycle.settled} == {
        **dict.fromkeys(ids(under_way), Result.TERMINATED),
        **dict.fromkeys(ids(rest), Result.WITHDRAWN),
    }
    told = {outcome.detail for _, outcome in cycle.settled}
    assert told == {None, "the reaper was stopping, or its policies have changed"}
    assert all(client.left() for client in under_way)
    assert all(client.alive() for client in rest)
    assert open_intents(post.record()) == []


def test_a_session_that_wakes_up_between_decision_and_act_lives_and_its_client_notices_nothing(
    post: Post,
) -> None:
    sleeper, waker = post.stage.open_many(2)
    post.sight()
    post.enforce = Meddler(post.stage.reaper.terminator, lambda: waker.run("SELECT 1"))

    cycle = post.cycle(policy(post.stage.application))

    assert {candidate.session.id: outcome.result for candidate, outcome in cycle.settled} == {
        identity(sleeper): Result.TERMINATED,
        identity(waker): Result.CHANGED,
    }
    assert waker.run("SELECT 'still here'") == [("still here",)]


def test_no_session_is_terminated_on_first_sight(post: Post) -> None:
    client = post.stage.open()
    post.stage.reaper.rest(client)
    usual = policy(post.stage.application)

    first = post.cycle(usual)
    assert spared_by(first, client) is SkipReason.FIRST_SIGHTING
    assert client.present()

    assert reaped(post.cycle(usual)) == [identity(client)]
    assert client.left()


def test_over_the_safety_limit_no_session_is_touched_and_that_is_logged(post: Post) -> None:
    clients = post.stage.open_many(4)
    post.sight()
    tripped = replace(policy(post.stage.application), safety_limit=SafetyLimit(share=0.01, above=3))

    cycle = post.cycle(tripped)

    assert [spared_by(cycle, client) for client in clients] == [SkipReason.SAFETY_LIMIT] * 4
    assert all(client.alive() for client in clients)
    assert cycle.left_undone
    ((name, matched),) = [
        (event.name, event.fields["matched"]) for event in post.record() if event.name != "audit.opened"
    ]
    assert (name, matched) == (SAFETY_LIMIT, 4)


def test_max_per_cycle_takes_the_longest_idle_first(post: Post) -> None:
    clients = post.stage.open_many(5)
    post.sight()
    paced = replace(policy(post.stage.application), max_per_cycle=2)

    taken = [reaped(post.cycle(paced)) for _ in range(3)]

    assert taken == [ids(clients[:2]), ids(clients[2:4]), ids(clients[4:])]
    assert all(client.left() for client in clients)


def test_a_dry_run_takes_the_same_decisions_as_the_real_one_cycle_by_cycle(
    post: Post, tmp_path: Path
) -> None:
    clients = post.stage.open_many(7)
    post.stage.open(state="idle in transaction")
    listener = post.stage.open()
    listener.listen()
    paced = replace(policy(post.stage.application), max_per_cycle=3)
    folder = tmp_path / "dry"
    folder.mkdir()
    dry = Post(post.stage, folder)
    dry.enforce = DryRunTerminator()
    dry.sight()

    dry_run_candidates = [dry.cycle(paced) for _ in range(4)]
    assert all(client.present() for client in clients)
    post.sight()
    reals = [post.cycle(paced) for _ in range(4)]

    assert [reaped(cycle) for cycle in dry_run_candidates] == [reaped(cycle) for cycle in reals]
    assert [len(reaped(cycle)) for cycle in reals] == [3, 3, 1, 0]
    assert {result for cycle in dry_run_candidates for result in cycle.results} == {Result.DRY_RUN}
    assert {result for cycle in reals for result in cycle.results} == {Result.TERMINATED}
    for dry_run_before, real in zip(dry_run_candidates, reals, strict=True):
        assert decisions(dry_run_before, post.stage) == decisions(real, post.stage)
    assert listener.present()


def decisions(cycle: Cycle, stage: Stage) -> dict[SessionId, str]:
    """What was decided about each session; those that a dry run took earlier are gone for it."""
    return {
        decision.session.id: "reap" if isinstance(decision, Candidate) else decision.by
        for decision in cycle.plan.decisions
        if decision.session.identity.application == stage.application
        and not (isinstance(decision, Skip) and decision.by is SkipReason.DRY_RUN)
    }


def test_a_dry_run_policy_touches_no_session_beside_one_that_enforces(post: Post) -> None:
    real, dry_run_before = post.stage.open(), post.stage.open(application=post.stage.sandbox.name("other"))
    post.sight()
    dry_running = replace(policy(post.stage.sandbox.name("*")), name="rehearsing", mode=Mode.DRY_RUN)

    cycle = post.cycle(dry_running, policy(post.stage.application))

    assert cycle.results[Result.TERMINATED] == 1
    assert real.left()
    assert dry_run_before.alive()
    modes = {
        (event.fields["mode"], event.fields["outcome"]) for event in post.record() if event.name == OUTCOME
    }
    assert modes == {("enforce", "terminated"), ("dry-run", "dry-run")}


def test_when_the_servers_clock_has_jumped_no_session_is_touched(post: Post) -> None:
    client = post.stage.open()
    seconds = iter([0.0, 0.0, 7200.0, 7200.0])  # each look has two ends
    post.clock = ClockWatch(lambda: next(seconds))
    usual = policy(post.stage.application)
    post.cycle(usual)

    cycle = post.cycle(usual)

    assert cycle.clock_step is not None
    assert cycle.clock_step < -7_000_000_000
    assert spared_by(cycle, client) is SkipReason.FIRST_SIGHTING
    assert client.alive()


def test_a_cancelled_session_is_in_the_audit_log_as_cancelled(post: Post) -> None:
    client = post.stage.open(state="active")
    post.sight()

    cycle = post.cycle(cancelling(post.stage.application))

    assert cycle.results == {Result.CANCELLED: 1}
    assert post.outcomes() == [(client.pid, "cancelled")]
    assert client.finish() == "57014"
    assert client.alive()


def test_the_servers_own_count_and_its_log_agree_with_the_record(post: Post) -> None:
    stage = post.stage
    before = len(stage.server.log_text())
    clients = [stage.open(database=stage.sandbox.database) for _ in range(6)]
    woken = stage.open(database=stage.sandbox.database)
    superuser = stage.clients.open(application=stage.application, database=stage.sandbox.database)
    post.sight()
    post.enforce = Meddler(stage.reaper.terminator, woken.wake)

    post.cycle(policy(stage.application, overrides=["superusers"]))

    recorded = {pid for pid, outcome in post.outcomes() if outcome == "terminated"}
    assert recorded == {client.pid for client in clients}
    assert {outcome for pid, outcome in post.outcomes() if pid == woken.pid} == {"changed"}
    assert {outcome for pid, outcome in post.outcomes() if pid == superuser.pid} == {"denied"}
    assert fatal_pids(stage.server.log_text()[before:]) == recorded
    if stage.server.major >= 14:
        until(lambda: killed(stage) >= len(recorded))
        assert killed(stage) == len(recorded)


def fatal_pids(log: str) -> set[object]:
    said = "FATAL:  terminating connection due to administrator command"
    return {int(line.split("[")[1].split("]")[0]) for line in log.splitlines() if said in line}


def killed(stage: Stage) -> int:
    row = stage.admin.execute(KILLED, (stage.sandbox.database,)).fetchone()
    return int(row[0]) if row else 0
