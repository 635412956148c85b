"""A drafted policy file is valid, and its policies match exactly the sessions that were seen."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.cli.advise import starting_file
from reaper.config import read
from reaper.config.draft import exactly
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.pools import is_suspect
from reaper.insight.advice.proposals import proposals
from reaper.policy.rules import Mode, Policy
from reaper.policy.selector import Glob
from tests.unit.insight.advice.scenes import evidence, leak, look, pool
from tests.unit.insight.advice.test_any_server import evidences
from tests.unit.policy.build import session
from tests.unit.policy.hostile import NAMES, PROPERTY

LIKE_YAML: Final = ["null", "yes", "~", "- a", "a: b", "#x", "{a}", "1e3", "&a", "*a", "!t", "|", "[a", "%T"]
LIKE_GLOBS: Final = ["*", "?", "web-*", "[!a]", "[[]", "[", "]", "a[b]c", "**?", "[:alpha:]", "[z-a]"]
LIKE_OTHERS: Final = ["^a$", "a$", "/a/", "a|b", "a, b", "all", "ALL", "!a", "!!", "!", "^", "$", "/"]
texts: Final = (
    st.sampled_from([*NAMES, *LIKE_YAML, *LIKE_GLOBS, *LIKE_OTHERS])
    | st.text(max_size=20)
    | st.text("*?[]!-ab/|,^$", max_size=8)
)


def policies(seen: Evidence) -> tuple[Policy, ...]:
    """The policies of the drafted file."""
    settings = read(starting_file(seen).encode(), file="policies.yaml")
    assert settings.warnings == ()
    return settings.rules.policies


@given(texts, texts)
def test_a_pattern_matches_its_name_and_no_other(name: str, other: str) -> None:
    pattern = exactly(name)
    if pattern is not None:
        assert Glob(pattern).matches(name)
        assert Glob(pattern).matches(other) is (name == other)


@pytest.mark.parametrize(
    "name", [*LIKE_YAML, *LIKE_GLOBS, "", "two\nlines", "x" * 63, "*" * 63, "\u202egnp", "é" * 31]
)
def test_every_name_that_a_server_shows_can_be_matched(name: str) -> None:
    (leaked, *_) = policies(evidence(look(leak(20, application=name))))
    assert leaked.match.selector.selects(session(application=name).identity)
    assert not leaked.match.selector.selects(session(application=name + "x").identity)


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "x" * 64])
def test_a_name_that_no_policy_file_can_spell_is_left_out_and_reported(name: str) -> None:
    seen = evidence(look(leak(20, application=name)))
    assert "cannot spell" in starting_file(seen)
    assert [each.name for each in policies(seen)] == ["forgotten-transactions"]


@PROPERTY
@given(evidences())
def test_the_file_is_valid_and_only_has_dry_runs(seen: Evidence) -> None:
    drafted = policies(seen)
    assert drafted
    assert {policy.mode for policy in drafted} == {Mode.DRY_RUN}


@PROPERTY
@given(evidences())
def test_each_policy_of_a_suspect_matches_its_sessions_only(seen: Evidence) -> None:
    suspects = {each.id for each in seen.ordinary if is_suspect(each)}
    drafted = {policy.name: policy for policy in policies(seen)}
    for proposed in proposals(seen).policies:
        policy = drafted.get(proposed.name)
        if policy is None or proposed.application is None:
            continue
        for one in seen.last.sessions:
            who = (one.identity.role, one.identity.application)
            assert policy.match.selector.selects(one.identity) is (
                who == (proposed.role, proposed.application)
            )
        if proposed.name.startswith("leak-"):
            assert (proposed.role, proposed.application) in suspects


def test_ages_are_round_and_above_those_that_ended() -> None:
    (leaked, *_) = policies(evidence(look(leak(20))))
    assert leaked.match.idle_for == 30 * 60 * 1_000_000


def test_monitoring_is_protected_by_name() -> None:
    seen = evidence(look([*leak(20), *pool(2, application="grafana [x]*", idle="1s")]))
    settings = read(starting_file(seen).encode(), file="policies.yaml")
    hit = settings.rules.protect.first_hit(session(application="grafana [x]*").identity)
    assert hit is not None
    assert settings.rules.protect.first_hit(session(application="grafana x1").identity) is None


def test_consoles_are_allowlisted_by_policies_for_every_role() -> None:
    drafted = policies(evidence(look([session(7, application="psql", idle="1s")])))
    skipped = drafted[-1].allowlist.first_hit(session(application="psql").identity)
    assert drafted[-1].name == "forgotten-transactions"
    assert skipped is not None


def test_a_safety_limit_that_would_stop_a_policy_is_reported() -> None:
    assert "the safety limit will stop" in starting_file(evidence(look(leak(20))))
    assert "safety limit" not in starting_file(
        evidence(look([*leak(20), *pool(60, application="b", idle="1s")]))
    )


def test_a_policy_for_full_slots_is_drafted_only_if_they_were_nearly_full() -> None:
    near = policies(evidence(look([*pool(50), *pool(35, first=5_000, application="b", idle="1s")])))
    calm = policies(evidence(look(pool(50))))
    assert [each.name for each in near] == ["last-slots", "forgotten-transactions"]
    assert near[0].when is not None
    assert near[0].when.slots_used == pytest.approx(0.9)
    assert [each.name for each in calm] == ["forgotten-transactions"]


def test_policies_have_different_names() -> None:
    both = [*leak(20, application="web_1"), *leak(20, first=5_000, application="web.1")]
    names = [each.name for each in policies(evidence(look(both)))]
    assert names[:2] == ["leak-web-1", "leak-web-1-2"]
