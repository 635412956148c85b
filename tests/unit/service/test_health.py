"""Live while every loop makes progress; ready while every server is worked at or stood by for."""

from dataclasses import replace

import pytest

from reaper.config import Server
from reaper.policy.rules import Mode
from reaper.policy.session import Slots
from reaper.service.status import HealthCheck, ServerStatus, State
from reaper.telemetry.metrics.collect import ReloadGauges
from tests.unit.policy.build import policy

from .build import BILLING, ORDERS, Clock, settings


class Service:
    """The health of a service with one status for each server, set by the test."""

    def __init__(self, *servers: Server, interval: float = 10, dry_run: bool = False) -> None:
        self.clock = Clock()
        self.reload = ReloadGauges()
        self.statuses = {server.name: ServerStatus(clock=self.clock) for server in servers}
        policies = (policy("a"), policy("b"), replace(policy("c"), mode=Mode.DRY_RUN))
        now = settings(*policies, interval=interval, servers=servers)
        self.health = HealthCheck(
            statuses=lambda: self.statuses, settings=lambda: now, reload=self.reload, dry_run=dry_run
        )

    @property
    def status(self) -> ServerStatus:
        return self.statuses["orders"]

    @property
    def billing(self) -> ServerStatus:
        return self.statuses["billing"]


@pytest.mark.parametrize("state", State)
def test_a_loop_that_makes_progress_is_live_whatever_the_state_of_its_server(state: State) -> None:
    service = Service(ORDERS)
    service.clock.passes(10_000)
    service.status.set(state, "so")
    assert service.health.live().good


@pytest.mark.parametrize(("interval", "limit"), [(1, 103), (10, 130), (3_600, 10_900)])
def test_a_loop_without_progress_for_three_intervals_and_the_longest_wait_is_not_live(
    interval: float, limit: float
) -> None:
    service = Service(ORDERS, BILLING, interval=interval)
    service.clock.passes(limit)
    assert service.health.live().good

    service.billing.state = State.UNREACHABLE
    service.clock.passes(limit + 1)
    service.status.progress()
    health = service.health.live()
    assert not health.good
    assert health.reasons == {"billing": f"no progress for {2 * limit + 1:.0f}s (unreachable)"}


@pytest.mark.parametrize("state", State)
def test_a_server_is_ready_only_while_it_is_worked_at_or_stood_by_for(state: State) -> None:
    service = Service(ORDERS, BILLING)
    service.status.set(State.WORKING)
    service.billing.set(state, "why")
    ready = state in {State.WORKING, State.STANDBY}
    health = service.health.ready()
    assert health.good is ready
    assert health.reasons == ({} if ready else {"billing": f"{state.value}: why"})


def test_the_service_has_started_when_every_loop_has_had_its_first_result() -> None:
    service = Service(ORDERS, BILLING)
    started = [service.health.started()]
    for status, state in ((service.status, State.WORKING), (service.billing, State.DENIED)):
        status.set(state)
        started.append(service.health.started())
    assert started == [False, False, True]


def test_a_service_without_servers_is_started_live_and_ready() -> None:
    health = Service().health
    assert health.started()
    assert health.live().good
    assert health.ready().good
    assert health.status() == "0 servers, 0 of 0 slots, 2 policies enforcing"


@pytest.mark.parametrize(
    ("billing", "line"),
    [
        (State.WORKING, "2 servers, 42 of 200 slots, 2 policies enforcing"),
        (State.UNREACHABLE, "2 servers, 12 of 100 slots, 2 policies enforcing, 1 unreachable"),
    ],
)
def test_the_status_counts_slots_of_reachable_servers_and_names_the_other_states(
    billing: State, line: str
) -> None:
    service = Service(ORDERS, BILLING)
    for status, used, state in ((service.status, 12, State.WORKING), (service.billing, 30, billing)):
        status.slots = Slots(total=100, reserved=3, used=used)
        status.set(state)
    assert service.health.status() == line


def test_the_status_shows_a_dry_run_and_a_refused_policy_file() -> None:
    service = Service(ORDERS, dry_run=True)
    assert service.health.status() == "1 server, 0 of 0 slots, 0 policies enforcing"
    service.reload.failed()
    assert service.health.status().endswith(", the policy file on disk is refused")


def test_a_status_shows_its_state_and_reason_and_progress_changes_neither() -> None:
    clock = Clock()
    status = ServerStatus(clock=clock)
    assert (str(status), status.started) == ("connecting", False)
    status.set(State.UNREACHABLE, "refused")
    clock.passes(5)
    assert status.silent_seconds == 5
    status.progress()
    assert (status.silent_seconds, str(status), status.started) == (0, "unreachable: refused", True)
    status.set(State.WORKING)
    assert str(status) == "working"
