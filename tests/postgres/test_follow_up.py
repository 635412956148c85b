"""After the cycles: outcomes of dry-run sessions, and pools that refill."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from reaper.audit.dry_runs import DryRunLog
from reaper.audit.events import DRY_RUN_OUTCOME, GROUP_PAUSED, Event
from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.policy.decide import decide
from reaper.policy.memory import Memory
from reaper.policy.plan import Result
from reaper.policy.refill_guard import RefillGuard
from reaper.policy.rules import Mode, Policy, Rules
from reaper.policy.session import Snapshot
from reaper.policy.time import SECOND, Duration
from reaper.postgres.observer import Observer
from reaper.postgres.watcher import SessionWatcher
from reaper.service.cycle import Cycle
from reaper.service.follow_up import DryRunWatch, FollowUp, FollowUpResult, OutcomeStore

from .clients import Client
from .post import AUTHOR, Post
from .reaping import DAY, policy
from .stage import Stage
from .waiting import until

INTERVAL: Final = Duration(10 * SECOND)


class Watching:
    """Cycles with a follow-up after each."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.post = Post(stage, folder)
        self.stage = stage
        self.store = OutcomeStore()
        self.after = FollowUp("test", self.post.ledger, self.store)
        self.watcher = SessionWatcher(stage.reaper.link)
        self.author = AUTHOR

    def sight(self) -> None:
        self.post.sight()

    def cycle(self, *policies: Policy) -> FollowUpResult:
        self.post.memory = self.after.reminded(self.post.memory)
        return self.look(self.post.cycle(*policies))

    def look(self, cycle: Cycle) -> FollowUpResult:
        work = self.after.cycled(cycle, self.watcher, self.author, interval=INTERVAL)
        return self.stage.reaper.do(work)

    def outcomes(self, *policies: Policy) -> dict[int, DryRunOutcome]:
        """The outcomes that one more cycle shows, by pid."""
        return {one.watched.id.pid: one.outcome for one in self.cycle(*policies).outcomes}

    def recorded(self, name: str) -> list[Event]:
        return [event for event in self.post.record() if event.name == name]


@pytest.fixture
def watching(stage: Stage, tmp_path: Path) -> Watching:
    return Watching(stage, tmp_path)


@pytest.fixture
def dry(stage: Stage) -> Policy:
    return replace(policy(stage.application), name="dry", mode=Mode.DRY_RUN)


def dry_run_before(watching: Watching, dry: Policy, count: int = 1) -> list[Client]:
    clients = watching.stage.open_many(count)
    watching.sight()
    assert watching.outcomes(dry) == {}
    assert len(watching.after.watch) == count
    return clients


def test_sessions_are_used_again_have_left_or_stay_watched(watching: Watching, dry: Policy) -> None:
    used, closed, stays = dry_run_before(watching, dry, 3)
    used.wake()
    closed.close()
    until(closed.left)

    assert watching.outcomes(dry)[used.pid] is DryRunOutcome.USED_AGAIN
    assert len(watching.after.watch) == 2  # the unchanged one, and the used one, which matches again
    told = {
        event.fields["pid"]: event.fields["dry_run_outcome"] for event in watching.recorded(DRY_RUN_OUTCOME)
    }
    assert told == {used.pid: "used-again", closed.pid: "left"}
    assert stays.pid not in told


def test_the_end_of_a_replaced_loop_ends_no_watch_of_the_new_one(watching: Watching, dry: Policy) -> None:
    (client,) = dry_run_before(watching, dry)
    old = watching.after
    watching.after = old.next()
    watching.post.memory = Memory()  # a new loop has observed no session
    watching.sight()
    watching.cycle(dry)

    old.watch.end()
    client.wake()

    assert watching.outcomes(dry) == {client.pid: DryRunOutcome.USED_AGAIN}
    told = [event.fields["dry_run_outcome"] for event in watching.recorded(DRY_RUN_OUTCOME)]
    assert told == ["unused", "used-again"]


def test_the_last_report_of_a_replaced_loop_does_not_replace_a_newer_one(
    watching: Watching, dry: Policy
) -> None:
    (client,) = dry_run_before(watching, dry)
    old = watching.after
    watching.after = old.next()
    watching.post.memory = Memory()
    watching.sight()
    watching.cycle(dry)
    client.wake()
    watching.outcomes(dry)

    old.watch.end()

    (dry_run,) = watching.store.beside([]).newest()
    assert dry_run.outcome is DryRunOutcome.USED_AGAIN
    seen = DryRunLog()
    for event in watching.post.record():
        seen.note(event)
    assert [
        dry_run.outcome for dry_run in seen.dry_runs() if dry_run.outcome is not DryRunOutcome.UNUSED
    ] == [DryRunOutcome.USED_AGAIN, None]


def test_sessions_that_another_loop_watches_get_no_outcome_here(watching: Watching, dry: Policy) -> None:
    (client,) = dry_run_before(watching, dry)
    old = watching.after
    watching.after = old.next()
    client.close()
    until(client.left)

    assert watching.outcomes(dry) == {}
    assert len(old.watch) == 1


def test_the_time_of_a_use_is_that_of_the_server(watching: Watching, dry: Policy) -> None:
    (client,) = dry_run_before(watching, dry)
    client.run("SELECT 1")
    watching.stage.reaper.rest(client)
    ((began, changed),) = watching.stage.admin.execute(
        "SELECT query_start, state_change FROM pg_stat_activity WHERE pid = %s", (client.pid,)
    ).fetchall()

    watching.cycle(dry)

    (event,) = watching.recorded(DRY_RUN_OUTCOME)
    assert event.text("used_at") == began.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert began < changed


def test_watched_sessions_that_the_prefilter_left_out_are_read_one_by_one(
    watching: Watching, stage: Stage
) -> None:
    day_old = replace(policy(stage.application, replace(policy("x").match, idle_for=DAY)), mode=Mode.DRY_RUN)
    used, closed, stays = stage.open_many(3)
    watching.sight()
    taken = watching.post.cycle(replace(day_old, match=replace(day_old.match, idle_for=Duration(0))))
    watching.look(taken)
    used.wake()
    closed.close()
    until(closed.left)

    later = prefiltered_cycle(watching, day_old)
    assert later.snapshot.left_out
    assert not {used.pid, stays.pid} & {one.id.pid for one in later.snapshot.sessions}
    outcomes = {one.watched.id.pid: one.outcome for one in watching.look(later).outcomes}
    assert outcomes == {used.pid: DryRunOutcome.USED_AGAIN, closed.pid: DryRunOutcome.LEFT}


def prefiltered_cycle(watching: Watching, day_old: Policy) -> Cycle:
    """A cycle of which the prefilter left out all sessions that are younger than a day."""
    reaper, rules = watching.stage.reaper, Rules(policies=(day_old,))
    observer = Observer(reaper.link, reaper.probe, server="test")

    def look() -> Snapshot:
        return reaper.do(observer.observe(rules, ahead=Duration(SECOND)))

    look()  # the first under new rules is a full one
    seen = look()
    plan = decide(snapshot=seen, rules=rules, memory=Memory())
    return Cycle(name="later", snapshot=seen, plan=plan, settled=(), memory=Memory())


def test_a_hidden_session_gets_no_outcome(watching: Watching, dry: Policy, stage: Stage) -> None:
    (client,) = dry_run_before(watching, dry)
    blind = stage.open_reaper(stage.sandbox.role("blind"))
    (session_id,) = {was.id for was in watching.post.memory.dry_run_before}

    seen = blind.do(SessionWatcher(blind.link).look([session_id]))

    assert seen
    assert seen.sessions == {}
    assert client.present()


def test_many_watched_sessions_are_read_like_few(watching: Watching, stage: Stage) -> None:
    clients = stage.open_many(12)
    snapshot = stage.reaper.look()
    ids = [one.id for one in snapshot.sessions if one.id.pid in {client.pid for client in clients}]
    gone, *_ = clients
    gone.close()
    until(gone.left)

    few, many = (stage.reaper.do(watching.watcher.look(some)) for some in (ids[:3], ids))

    assert few
    assert many
    assert few.sessions.items() <= many.sessions.items()
    assert [one.pid for one, stands in many.sessions.items() if stands is None] == [gone.pid]


def test_a_session_that_an_enforcing_policy_terminated_says_nothing_about_the_dry_run(
    watching: Watching, dry: Policy, stage: Stage
) -> None:
    (client,) = dry_run_before(watching, dry)

    news = watching.cycle(dry, policy(stage.application))

    assert [(one.outcome, one.reason) for one in news.outcomes] == [
        (DryRunOutcome.UNKNOWN, "a policy that enforces has acted on it")
    ]
    assert client.left()


def test_a_session_that_exits_while_the_connection_is_lost_has_an_unknown_outcome(
    watching: Watching, dry: Policy
) -> None:
    (client,) = dry_run_before(watching, dry)
    watching.after.watch.interrupted()
    client.close()
    until(client.left)

    assert watching.outcomes(dry) == {client.pid: DryRunOutcome.UNKNOWN}


def test_a_dry_run_starts_again_under_new_rules(watching: Watching, dry: Policy) -> None:
    (client,) = dry_run_before(watching, dry)
    watching.author = replace(AUTHOR, rules="another")
    watching.post.memory = watching.post.memory.forgetting_dry_runs()

    assert watching.outcomes(dry) == {client.pid: DryRunOutcome.UNUSED}
    assert len(watching.after.watch) == 1
    assert {each.watched.rules for each in watching.after.watch.end()} == {"another"}


def test_the_number_of_watched_sessions_is_limited_and_the_rest_is_logged(
    watching: Watching, dry: Policy
) -> None:
    watching.after.watch = DryRunWatch("test", watching.post.ledger, OutcomeStore(), most=2)
    watching.stage.open_many(3)
    watching.sight()

    outcomes = watching.outcomes(dry)

    assert list(outcomes.values()) == [DryRunOutcome.UNKNOWN]
    assert len(watching.after.watch) == 2
    (event,) = watching.recorded(DRY_RUN_OUTCOME)
    assert event.text("detail") == "not watched: 2 are watched already"


def test_at_the_end_an_unused_session_is_reported_as_unused(watching: Watching, dry: Policy) -> None:
    (client,) = dry_run_before(watching, dry)
    watching.cycle(dry)

    (end,) = watching.after.watch.end()

    assert (end.watched.id.pid, end.outcome) == (client.pid, DryRunOutcome.UNUSED)
    assert watching.recorded(DRY_RUN_OUTCOME)[-1].text("dry_run_outcome") == "unused"
    assert len(watching.after.watch) == 0


def test_without_watched_sessions_no_statement_is_sent(watching: Watching, dry: Policy, stage: Stage) -> None:
    stage.open()
    closed = SessionWatcher(stage.open_reaper().link)
    stage.reaper.do(closed._connection.close())
    watching.watcher = closed

    assert watching.cycle(replace(dry, mode=Mode.DISABLED)) == FollowUpResult([], [])


AT_ONCE: Final = RefillGuard(
    within=Duration(SECOND // 2),
    share=0.9,
    acts=4,
    pause=Duration(3_600 * SECOND),
    longest=Duration(7_200 * SECOND),
)


@pytest.fixture
def reaping(stage: Stage) -> Policy:
    return replace(policy(stage.application), name="reap", refill_guard=AT_ONCE)


def after_a_round(watching: Watching, reaping: Policy, *, refilled: bool) -> FollowUpResult:
    """Four sessions go, their pool opens as many or does not, and time passes in which it could have."""
    for client in watching.stage.open_many(4 - len(watching.stage.sessions)):
        assert client.present()
    watching.sight()
    off = replace(reaping, mode=Mode.DISABLED)
    passes(watching, off)  # the sessions so far connected before the terminations
    cycle = watching.post.cycle(reaping)
    assert cycle.results[Result.TERMINATED] == 4
    watching.look(cycle)
    if refilled:
        watching.stage.open_many(4)
    passes(watching, off)
    return watching.cycle(off)


def passes(watching: Watching, off: Policy) -> None:
    """Wait until so much time has passed at the server as newcomers have."""
    began = watching.post.cycle(off).snapshot.at
    until(lambda: watching.post.cycle(off).snapshot.at > began + AT_ONCE.within)


def test_a_pool_that_refills_at_once_is_paused_and_logged(
    watching: Watching, reaping: Policy, stage: Stage
) -> None:
    (pool,) = after_a_round(watching, reaping, refilled=True).paused

    assert pool.group.identity.application == stage.application
    assert pool.reason.startswith(
        "refill guard: 4 of 4 terminated sessions were replaced within 500ms; paused until "
    )
    (event,) = watching.recorded(GROUP_PAUSED)
    assert (event.fields["terminated"], event.fields["refilled"]) == (4, 4)
    watching.sight()
    cycle = watching.post.cycle()
    watching.post.memory = watching.after.reminded(cycle.remembered)
    skipped = [skip.reason for skip in watching.post.cycle(reaping).plan.skips if skip.policy]
    assert skipped == [pool.reason] * 4
    assert len(stage.sessions) == 4


def test_a_pool_that_does_not_refill_is_not_paused(watching: Watching, reaping: Policy) -> None:
    assert after_a_round(watching, reaping, refilled=False).paused == []
    assert not watching.after.refills.paused


def test_the_usual_number_of_new_sessions_is_counted_at_the_first_termination(
    watching: Watching, reaping: Policy, stage: Stage
) -> None:
    stage.open_many(4)
    stage.open(application=f"{stage.application}-other")
    watching.sight()
    minutes = replace(AT_ONCE, within=Duration(120 * SECOND))

    watching.look(watching.post.cycle(replace(reaping, refill_guard=minutes)))

    (case,) = watching.after.refills._groups.values()
    assert (case.before, len(case.ends)) == (4, 4)


def test_sessions_of_another_application_are_no_refill(
    watching: Watching, reaping: Policy, stage: Stage
) -> None:
    after_a_round(watching, reaping, refilled=False)
    for _ in range(4):
        stage.open(application=f"{stage.application}-other")

    assert watching.cycle(replace(reaping, mode=Mode.DISABLED)).paused == []
