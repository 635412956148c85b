"""Live as long as the loops come round; ready as long as every server that is ours is looked after."""

from dataclasses import replace

import pytest

from reaper.config import Server
from reaper.policy.rules import Mode
from reaper.policy.session import Slots
from reaper.service.status import HealthCheck, ServerStatus, State
from reaper.telemetry.metrics.collect import ReloadGauges
from tests.unit.policy.build import policy

from .build import BILLING, ORDERS, Clock, Ears, Mustered, fleet, settings


class Watched:
    """Loops that do not run, each with a standing that a test sets."""

    def __init__(self, *servers: Server, interval: float = 10, dry_run: bool = False) -> None:
        self.clock = Clock()
        self.reload = ReloadGauges()
        both = (policy("a"), policy("b"), replace(policy("c"), mode=Mode.DRY_RUN))
        now = settings(*both, interval=interval, servers=servers)
        self.loops = Mustered()
        all_of_them = fleet(Ears(), now)
        all_of_them.update_servers(servers, self.loops.append)
        for loop in self.loops:
            loop.status = ServerStatus(clock=self.clock)
        self.health = HealthCheck(
            statuses=lambda: all_of_them.statuses, settings=lambda: now, reload=self.reload, dry_run=dry_run
        )

    def status(self, number: int = 0) -> ServerStatus:
        return self.loops[number].status


@pytest.mark.parametrize("state", State)
def test_a_loop_that_comes_round_lives_whatever_its_server_does(state: State) -> None:
    watched = Watched(ORDERS)
    watched.clock.passes(10_000)
    watched.status().set(state, "so")
    assert watched.health.live().good


@pytest.mark.parametrize(("interval", "limit"), [(1, 103), (10, 130), (3_600, 10_900)])
def test_a_loop_that_stands_still_beyond_three_intervals_and_the_longest_back_off_is_dead(
    interval: float, limit: float
) -> None:
    watched = Watched(ORDERS, BILLING, interval=interval)
    watched.clock.passes(limit)
    assert watched.health.live().good

    watched.status(0).set(State.WORKING)
    watched.status(1).state = State.UNREACHABLE
    watched.clock.passes(limit + 1)
    watched.status(0).progress()
    health = watched.health.live()
    assert not health.good
    assert health.reasons == {"billing": f"no progress for {2 * limit + 1:.0f}s (unreachable)"}


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        (State.CONNECTING, False),
        (State.UNREACHABLE, False),
        (State.DENIED, False),
        (State.FAILING, False),
        (State.STANDBY, True),
        (State.WORKING, True),
    ],
)
def test_only_a_server_that_is_worked_at_or_stood_by_is_ready(state: State, *, ready: bool) -> None:
    watched = Watched(ORDERS)
    watched.status().set(state, "why")
    health = watched.health.ready()
    assert health.good is ready
    assert health.reasons == ({} if ready else {"orders": f"{state.value}: why"})


def test_one_server_in_trouble_is_named_and_the_others_are_not() -> None:
    watched = Watched(ORDERS, BILLING)
    watched.status(0).set(State.WORKING)
    watched.status(1).set(State.UNREACHABLE, "connection refused")
    assert watched.health.ready().reasons == {"billing": "unreachable: connection refused"}


def test_the_start_is_over_when_every_loop_has_had_its_first_result() -> None:
    watched = Watched(ORDERS, BILLING)
    assert not watched.health.started()
    watched.status(0).set(State.WORKING)
    assert not watched.health.started()
    watched.status(1).set(State.DENIED)
    assert watched.health.started()


def test_without_a_server_it_is_started_live_and_ready() -> None:
    health = Watched().health
    assert health.started()
    assert health.live().good
    assert health.ready().good
    assert health.status() == "0 servers, 0 of 0 slots, 2 policies enforcing"


def test_the_status_is_one_line_of_numbers() -> None:
    watched = Watched(ORDERS, BILLING)
    for loop, used in zip(watched.loops, (12, 30), strict=True):
        loop.status.slots = Slots(total=100, reserved=3, used=used)
        loop.status.set(State.WORKING)
    assert watched.health.status() == "2 servers, 42 of 200 slots, 2 policies enforcing"


def test_the_status_counts_the_slots_that_are_seen_now_and_the_servers_that_are_not() -> None:
    watched = Watched(ORDERS, BILLING)
    for loop, state in zip(watched.loops, (State.WORKING, State.UNREACHABLE), strict=True):
        loop.status.slots = Slots(total=100, reserved=3, used=12)
        loop.status.set(state)
    assert watched.health.status() == "2 servers, 12 of 100 slots, 2 policies enforcing, 1 unreachable"


def test_the_status_of_a_dry_run_speaks_of_no_policy_that_enforces() -> None:
    assert Watched(ORDERS, dry_run=True).health.status() == "1 server, 0 of 0 slots, 0 policies enforcing"


def test_the_status_says_when_the_file_on_disk_is_refused() -> None:
    watched = Watched(ORDERS)
    watched.reload.failed()
    assert watched.health.status().endswith(", the policy file on disk is refused")


def test_a_standing_says_its_state_and_the_reason_if_there_is_one() -> None:
    status = ServerStatus(clock=Clock())
    assert (str(status), status.started) == ("connecting", False)
    status.set(State.STANDBY, "another reaper leads")
    assert (str(status), status.started) == ("standby: another reaper leads", True)
    status.set(State.WORKING)
    assert str(status) == "working"


def test_a_sign_of_life_ends_the_silence_and_changes_nothing_else() -> None:
    clock = Clock()
    status = ServerStatus(clock=clock)
    status.set(State.UNREACHABLE, "refused")
    clock.passes(5)
    assert status.silent_seconds == 5
    status.progress()
    assert status.silent_seconds == 0
    assert str(status) == "unreachable: refused"
