"""Outcomes that are unknown, still there or withdrawn."""

import asyncio
from collections.abc import Iterator

import pytest

from reaper.demo.server import EmbeddedServer
from reaper.policy.plan import Outcome, Result

from . import majors
from . import server as servers
from .proxy import Proxy, frozen
from .reaping import Reaper, cancelling, now, policy
from .server import Server
from .stage import Stage
from .waiting import until


@pytest.fixture(scope="module")
def freezable(major: int) -> Iterator[Server]:
    """A server whose sessions these tests may freeze."""
    with EmbeddedServer(binaries=majors.installation(major)) as embedded:
        yield servers.ours(embedded)


@pytest.fixture
def own_stage(freezable: Server) -> Iterator[Stage]:
    with Stage(freezable) as stage:
        yield stage


def test_signalled_sessions_are_confirmed_as_they_exit_and_a_frozen_one_as_still_there(
    own_stage: Stage,
) -> None:
    stuck, *quick = own_stage.open_many(4)
    reaper = own_stage.reaper
    candidates = [reaper.chosen(client, policy(own_stage.application)) for client in (stuck, *quick)]
    with frozen(stuck.pid):
        assert {reaper.signal(candidate).result for candidate in candidates} == {Result.SIGNALLED}
        *told, last = reaper.confirm(*candidates)
        assert stuck.present()

    assert [outcome.result for outcome in told] == [Result.TERMINATED] * 3
    assert (last.result, last.detail) == (Result.SIGNALLED, "signalled, and still there 2s later")
    until(stuck.left)


def test_a_connection_cut_while_signalling_leaves_the_outcome_unknown(stage: Stage, proxy: Proxy) -> None:
    client = stage.open()
    with Reaper(proxy.dsn(stage.role.dsn)) as reaper:
        candidate = reaper.chosen(client, policy(stage.application))
        heard = now()
        proxy.stall()

        async def signal_while_cut() -> Outcome:
            signalling = reaper.terminator.terminate(candidate, answered_at=heard)
            outcome, _ = await asyncio.gather(signalling, asyncio.to_thread(proxy.cut))
            return outcome

        outcome = reaper.do(signal_while_cut())

        assert outcome.result is Result.UNKNOWN
        assert str(outcome.detail).startswith("the connection was lost: ")
        assert client.alive()


def test_a_connection_cut_before_the_confirmation_leaves_the_outcome_unknown(
    own_stage: Stage,
) -> None:
    client = own_stage.open()
    with Proxy(own_stage.server.dsn) as proxy, Reaper(proxy.dsn(own_stage.role.dsn)) as reaper:
        candidate = reaper.chosen(client, policy(own_stage.application))
        with frozen(client.pid):
            assert reaper.signal(candidate).result is Result.SIGNALLED
            proxy.cut()

            (outcome,) = reaper.confirm(candidate)

    assert outcome.result is Result.UNKNOWN
    assert str(outcome.detail).startswith("signalled, then the connection was lost: ")


def test_after_the_connection_was_lost_the_rest_is_withdrawn(stage: Stage, proxy: Proxy) -> None:
    client = stage.open()
    with Reaper(proxy.dsn(stage.role.dsn)) as reaper:
        candidate = reaper.chosen(client, policy(stage.application))
        proxy.cut()

        outcomes = [reaper.act(candidate), reaper.act(candidate)]

    assert [outcome.result for outcome in outcomes] == [Result.UNKNOWN, Result.WITHDRAWN]
    assert client.alive()


def test_a_session_that_left_instead_of_being_cancelled_is_gone(own_stage: Stage) -> None:
    client = own_stage.open(state="active")
    candidate = own_stage.reaper.chosen(client, cancelling(own_stage.application))
    with frozen(client.pid):
        assert own_stage.reaper.signal(candidate).result is Result.SIGNALLED
        own_stage.clients.terminate(client)
    until(client.left)

    (outcome,) = own_stage.reaper.confirm(candidate)

    assert outcome.result is Result.GONE
