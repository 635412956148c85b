"""A look leaves out whom no policy can mean yet, where that pays and changes nothing."""

from dataclasses import replace
from typing import Final

import pytest
from psycopg.sql import SQL, Identifier

from reaper.policy.match import Match
from reaper.policy.rules import Cap, Rules
from reaper.policy.selector import Glob, Selector
from reaper.policy.session import IDLE, Snapshot
from reaper.policy.time import Span
from reaper.postgres import observer
from reaper.postgres.observer import Observer

from .reaping import AT_ONCE, DAY, NOW, policy
from .stage import Stage

FAR: Final = Match(states=(IDLE,), idle_for=DAY)
AHEAD: Final = Span(0)


class Looks:
    """An observer that may leave out the young, and the statements that it takes."""

    def __init__(self, stage: Stage, *, one_by_one: float = 0.1) -> None:
        self._reaper = stage.reaper
        self._observer = Observer(stage.reaper.link, stage.reaper.probe, server="test", one_by_one=one_by_one)

    def look(self, rules: Rules, *, ahead: Span | None = AHEAD) -> Snapshot:
        return self._reaper.do(self._observer.observe(rules, ahead=ahead))

    def left_out(self, rules: Rules) -> list[bool]:
        """Of three looks in a row, which have left out the young."""
        return [self.look(rules).young is not None for _ in range(3)]


def test_whom_no_policy_can_mean_yet_is_counted_and_not_looked_at(stage: Stage) -> None:
    stage.open_many(5)
    looks, rules = Looks(stage), Rules(policies=(policy(stage.application, FAR),))

    everybody, some = looks.look(rules), looks.look(rules)

    assert everybody.young is None
    assert [session.id.pid for session in some.sessions] == [some.watcher.pid]
    assert some.young == len(everybody.sessions) - 1
    assert (some.slots, some.clients) == (everybody.slots, everybody.clients)


@pytest.mark.parametrize("one_by_one", [0.0, 1.0])
def test_whose_role_no_policy_means_is_counted_and_not_looked_at_however_old(
    stage: Stage, one_by_one: float
) -> None:
    stage.open_many(3)
    batch = stage.sandbox.role("batch")
    client = stage.open(role=batch)
    looks, rules = Looks(stage, one_by_one=one_by_one), meaning(batch.name)

    everybody, some = looks.look(rules), looks.look(rules)

    assert others(some) == {client.pid}
    assert others(everybody) > others(some)
    assert (some.slots, some.clients) == (everybody.slots, everybody.clients)


def test_a_role_that_is_renamed_is_met_again_when_everybody_is_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, was, becomes = stage.open(), stage.app.name, stage.sandbox.name("other")
    looks, rules = Looks(stage), meaning(becomes)
    looks.look(rules)
    rename(stage, was, becomes)
    try:
        before = looks.look(rules)
        monkeypatch.setattr(observer, "_FEW_EVERY", NOW)
        after = [looks.look(rules) for _ in range(3)]
    finally:
        rename(stage, becomes, was)

    assert others(before) == set()
    assert [look.young is None for look in after] == [False, True, False]
    assert others(after[-1]) == {client.pid}


def meaning(role: str) -> Rules:
    """Rules that mean this role, whatever its sessions are called."""
    match = replace(AT_ONCE, selector=Selector(role=(Glob(role),)))
    return Rules(policies=(policy("*", match),))


def others(snapshot: Snapshot) -> set[int]:
    """The pids that are shown, without the observer's own."""
    return {session.id.pid for session in snapshot.sessions} - {snapshot.watcher.pid}


def rename(stage: Stage, role: str, name: str) -> None:
    stage.admin.execute(SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role), Identifier(name)))


def test_under_new_rules_everybody_is_looked_at_once(stage: Stage) -> None:
    stage.open()
    looks = Looks(stage)

    for name in ("one", "another"):
        rules = Rules(policies=(policy(name, FAR),))
        assert looks.left_out(rules) == [False, True, True]


@pytest.mark.parametrize(("few", "every"), [(1_000_000, "_FEW_EVERY"), (0, "_ALL_EVERY")])
def test_from_time_to_time_everybody_is_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, few: int, every: str
) -> None:
    monkeypatch.setattr(observer, "_FEW", few)
    looks, rules = Looks(stage), Rules(policies=(policy(stage.application, FAR),))
    assert looks.left_out(rules) == [False, True, True]

    monkeypatch.setattr(observer, every, NOW)

    assert looks.left_out(rules) == [True, False, True]


def test_a_cap_counts_the_young_too_once_there_is_a_candidate(stage: Stage) -> None:
    old, young = stage.open(), stage.open()
    stage.reaper.rest(old)
    between = stage.reaper.see(old).state_change
    assert between
    young.wake()
    limit = Span(stage.reaper.look().at - between - 1)
    capped = replace(
        policy(stage.application, Match(states=(IDLE,), idle_for=limit)), cap=Cap(most=1, per=("role",))
    )

    assert Looks(stage).left_out(Rules(policies=(capped,))) == [False, False, False]
    far = replace(capped, match=replace(capped.match, idle_for=DAY))
    assert Looks(stage).left_out(Rules(policies=(far,))) == [False, True, True]


def test_without_looking_ahead_everybody_is_shown(stage: Stage) -> None:
    looks, rules = Looks(stage), Rules(policies=(policy(stage.application, FAR),))

    assert [looks.look(rules, ahead=None).young for _ in range(2)] == [None, None]


def test_a_blind_role_counts_what_it_cannot_read_either_way(stage: Stage) -> None:
    stage.open_many(3)
    blind = stage.open_reaper(stage.sandbox.role("blind"))
    rules = Rules(policies=(policy(stage.application, FAR),))
    looks = Observer(blind.link, blind.probe, server="test")

    everybody, some = (blind.do(looks.observe(rules, ahead=AHEAD)) for _ in range(2))

    assert (everybody.young, some.young) == (None, 0)
    assert everybody.unreadable == some.unreadable >= 3
    assert everybody.slots == some.slots
