"""A look leaves out whom no policy can mean yet, where that pays and changes nothing."""

from dataclasses import replace
from typing import Final

import pytest

from reaper.policy.match import Match
from reaper.policy.rules import Cap, Rules
from reaper.policy.session import IDLE, Snapshot
from reaper.policy.spans import Span
from reaper.postgres import observer
from reaper.postgres.observer import Observer

from .reaping import DAY, NOW, policy
from .stage import Stage

FAR: Final = Match(states=(IDLE,), idle_for=DAY)
AHEAD: Final = Span(0)


class Looks:
    """An observer that may leave out the young, and the statements that it takes."""

    def __init__(self, stage: Stage) -> None:
        self._reaper = stage.reaper
        self._observer = Observer(stage.reaper.link, stage.reaper.probe, server="test")

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


def test_under_new_rules_everybody_is_looked_at_once(stage: Stage) -> None:
    stage.open()
    looks = Looks(stage)

    for name in ("one", "another"):
        rules = Rules(policies=(policy(name, FAR),))
        assert looks.left_out(rules) == [False, True, True]


@pytest.mark.parametrize(("few", "every"), [(1_000_000, "_FEW_EVERY"), (0, "_WHOLE_EVERY")])
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
