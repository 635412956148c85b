"""Roles that the prefilter may leave out because no policy matches them."""

from dataclasses import replace

import pytest
from hypothesis import given

from reaper.policy import prefilter as module
from reaper.policy.prefilter import unmatched_roles
from reaper.policy.rules import Mode, Policy, Rules
from reaper.policy.selector import Selector
from reaper.policy.session import Session, Snapshot

from .build import IDLE_10M, globs, policy, session, snapshot
from .hostile import PROPERTY, World, worlds

WEB, BATCH = 10, 20


def of(role: str | None, number: int | None, pid: int = 100) -> Session:
    return replace(session(pid, role=role), role_oid=number)


def matching(*roles: str, mode: Mode = Mode.ENFORCE) -> Policy:
    return policy(match=replace(IDLE_10M, selector=Selector(role=globs(*roles))), mode=mode)


def left_out(seen: Snapshot, *policies: Policy) -> tuple[int, ...]:
    return unmatched_roles(seen, Rules(policies=policies).matches)


BOTH = snapshot(of("web", WEB), of("batch", BATCH, 101))


@pytest.mark.parametrize(
    ("policies", "unmatched"),
    [
        ([matching("web")], (BATCH,)),
        ([matching("web"), matching("ba*")], ()),
        ([matching("web", mode=Mode.DRY_RUN)], (BATCH,)),
        ([matching("web", mode=Mode.DISABLED)], (WEB, BATCH)),
        ([matching("web"), policy()], ()),
        ([], (WEB, BATCH)),
    ],
)
def test_a_role_that_no_enabled_policy_matches_is_left_out(
    policies: list[Policy], unmatched: tuple[int, ...]
) -> None:
    assert left_out(BOTH, *policies) == unmatched


@pytest.mark.parametrize("unknown", [of(None, BATCH), of("batch", None)])
def test_a_role_with_unknown_fields_is_read(unknown: Session) -> None:
    assert left_out(snapshot(unknown), matching("web")) == ()


def test_of_too_many_roles_those_with_the_most_sessions_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_ROLES", 1)
    pool = [of("batch", BATCH, 101 + number) for number in range(2)]
    assert left_out(snapshot(of("report", WEB), *pool), matching("web")) == (BATCH,)


@PROPERTY
@given(worlds())
def test_no_policy_matches_a_session_of_a_role_that_is_left_out(world: World) -> None:
    numbers = {
        name: number for number, name in enumerate({one.identity.role for one in world.snapshot.sessions})
    }
    seen = replace(
        world.snapshot,
        sessions=tuple(replace(one, role_oid=numbers[one.identity.role]) for one in world.snapshot.sessions),
    )
    left = unmatched_roles(seen, world.rules.matches)
    assert not any(world.rules.matching(one).policies for one in seen.sessions if one.role_oid in left)
