"""The data of the status page, built from the loops, the metrics and the recent events."""

import asyncio
from dataclasses import replace

from reaper.config import Server, Settings
from reaper.policy.memory import Memory
from reaper.policy.plan import Outcome, Result
from reaper.policy.rules import Mode, SafetyLimit
from reaper.policy.session import Slots
from reaper.service.cycle import Cycle
from reaper.service.page_data import LiveAssessment, PageData
from reaper.service.reporter import SAFETY_LIMIT, RecentEvents
from reaper.service.status import State
from reaper.telemetry.http.views import Overview, ServerView
from tests.unit.policy.build import NOW, plan, policy, sessions, snapshot

from .build import BILLING, ORDERS, Clock, Reports, StartedLoops, fleet, settings


class Service:
    """Loops that do not run, and the page data of them."""

    def __init__(self, *servers: Server, now: Settings | None = None, dry_run: bool = False) -> None:
        self.reports = Reports()
        self.settings = now or settings(policy())
        self.fleet = fleet(self.reports, self.settings)
        self.loops = StartedLoops()
        self.fleet.update_servers(servers, self.loops.append)
        self.clock = Clock()
        self.recent_events = RecentEvents()
        self.page_data = PageData(
            fleet=self.fleet,
            settings=lambda: self.settings,
            metrics=self.reports.metrics,
            recent_events=self.recent_events,
            assessment=LiveAssessment(fleet=self.fleet).read,
            dry_run=dry_run,
            clock=self.clock,
            began=self.clock(),
        )

    def find(self, name: str | None = None) -> Overview | None:
        return asyncio.run(self.page_data.overview(name))

    def overview(self, name: str | None = None) -> Overview:
        overview = self.find(name)
        assert overview is not None
        return overview

    def shown(self, name: str | None = None) -> ServerView:
        shown = self.overview(name).shown
        assert shown is not None
        return shown


def test_the_only_server_is_shown_in_full_and_one_of_several_if_it_is_named() -> None:
    alone, both = Service(ORDERS), Service(ORDERS, BILLING)

    assert alone.shown().name == "orders"
    assert both.overview().shown is None
    assert both.shown("billing").name == "billing"
    assert both.find("payroll") is None


def test_servers_without_a_working_reaper_come_first_and_then_the_fullest() -> None:
    servers = [Server(name=name, dsn="") for name in ("calm", "full", "down", "busy", "standby")]
    service = Service(*servers)
    for loop, used in zip(service.loops, (10, 97, 50, 60, 0), strict=True):
        loop.status.slots = Slots(total=100, reserved=3, used=used)
        loop.status.set(State.WORKING)
    service.loops[2].status.set(State.UNREACHABLE, "connection refused")
    service.loops[4].status.set(State.STANDBY, "another reaper leads")

    lines = service.overview().servers

    assert [line.name for line in lines] == ["down", "full", "busy", "calm", "standby"]
    assert [(line.used, line.usable) for line in lines[:2]] == [(None, None), (97, 97)]
    assert lines[0].why == "connection refused"


def test_a_server_without_a_snapshot_is_shown_all_the_same() -> None:
    service = Service(ORDERS)
    service.clock.passes(42)

    overview = service.overview()

    assert overview.up_s == 42
    assert overview.shown
    assert (overview.shown.usage, overview.shown.seen_s_ago, overview.shown.soonest) == (None, None, ())


def test_a_policy_is_shown_with_its_outcomes_and_the_sessions_that_it_matches() -> None:
    service = Service(ORDERS)
    observed = snapshot(*sessions(3))
    decided = plan(observed, *service.settings.rules.policies)
    cycle = Cycle(
        name="1",
        snapshot=observed,
        plan=decided,
        settled=tuple(
            (candidate, Outcome(result=Result.TERMINATED, at=NOW)) for candidate in decided.candidates
        ),
        memory=Memory(),
    )
    service.fleet.totals["orders"].add(cycle)
    service.reports.metrics.servers["orders"].plan = decided

    (line,) = service.shown().policies
    assert (line.name, line.mode, line.matching, line.outcomes) == ("leaked", "enforce", 3, {"terminated": 3})
    assert not line.tripped


def test_with_dry_run_no_policy_is_shown_as_enforcing() -> None:
    now = settings(policy("one"), policy("two", mode=Mode.DRY_RUN), policy("three", mode=Mode.DISABLED))
    overview = Service(ORDERS, now=now, dry_run=True).overview()

    assert overview.dry_run
    assert overview.shown
    assert [line.mode for line in overview.shown.policies] == ["dry-run", "dry-run", "disabled"]


def test_recent_events_are_the_last_30_the_newest_first() -> None:
    recent_events = RecentEvents()
    careful = replace(policy("careful"), safety_limit=SafetyLimit(share=0.1, above=1))
    for observed, rule, results in (
        (snapshot(*sessions(9)), careful, ()),
        (
            snapshot(*sessions(40)),
            replace(policy(), max_per_cycle=40, safety_limit=None),
            (Result.CHANGED,) * 40,
        ),
        (snapshot(*sessions(1)), policy(), (Result.TERMINATED,)),
    ):
        decided = plan(observed, rule)
        pairs = zip(decided.candidates, results, strict=True) if results else ()
        settled = tuple((candidate, Outcome(result=result, at=NOW)) for candidate, result in pairs)
        recent_events.add(
            "orders", Cycle(name="1", snapshot=observed, plan=decided, settled=settled, memory=Memory())
        )
        if not results:
            assert [each.outcome for each in recent_events.latest(9)] == [SAFETY_LIMIT]

    latest = recent_events.latest(12)

    assert [each.outcome for each in latest] == ["terminated", *["changed"] * 11]
    assert latest[0].session == sessions(1)[0].identity
    assert len(recent_events.latest(1_000)) == 30
