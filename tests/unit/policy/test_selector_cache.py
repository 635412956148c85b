"""Selectors are evaluated once for each identity; the cache is limited."""

from dataclasses import dataclass, field, replace

import pytest

from reaper.policy import rules as module
from reaper.policy.match import Match
from reaper.policy.rules import Policy, Rules
from reaper.policy.selector import Selector
from reaper.policy.session import IDLE, Identity
from reaper.policy.time import parse_duration

from .build import globs, policy, session

WEB = Identity("shop", "app", "web-1", "10.2.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting(Selector):
    """A selector that notes whom it was asked about."""

    asked: list[Identity] = field(default_factory=list, compare=False)

    def selects(self, identity: Identity) -> bool:
        self.asked.append(identity)
        return super(Counting, self).selects(identity)


def counting(selector: Counting) -> Rules:
    match = Match(states=(IDLE,), idle_for=parse_duration("10m"), selector=selector)
    return Rules(policies=(policy(match=match),))


def matching(rules: Rules, who: Identity) -> tuple[Policy, ...]:
    return rules.matching(replace(session(), identity=who)).policies


def test_a_selector_is_evaluated_once_for_each_identity() -> None:
    selector = Counting(application=globs("web-*"))
    rules = counting(selector)

    answers = [[found.name for found in matching(rules, WEB)] for _ in range(3)]

    assert answers == [["leaked"]] * 3
    assert selector.asked == [WEB]


def test_the_number_of_remembered_identities_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_IDENTITIES", 10)
    selector = Counting(application=globs("web-*"))
    rules = counting(selector)
    invented = [WEB._replace(application=f"web-{number}") for number in range(11)]

    for who in (*invented, WEB):
        assert matching(rules, who)

    assert selector.asked == [*invented, WEB]  # web-1 was asked about before, and forgotten


def test_the_cache_is_not_part_of_the_rules() -> None:
    rules = counting(Counting(application=globs("web-*")))
    other = replace(rules)

    assert matching(rules, WEB)

    assert rules == other
