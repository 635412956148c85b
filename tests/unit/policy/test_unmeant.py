"""Roles whose sessions a look may leave out, for no policy means them."""

from dataclasses import replace

import pytest
from hypothesis import given

from reaper.policy import unmeant as module
from reaper.policy.rules import Mode, Policy, Rules
from reaper.policy.selector import Selector
from reaper.policy.session import Session, Snapshot
from reaper.policy.unmeant import unmeant_roles

from .build import IDLE_10M, globs, policy, session, snapshot
from .hostile import PROPERTY, World, worlds

WEB, BATCH = 10, 20


def of(role: str | None, number: int | None, pid: int = 100) -> Session:
    return replace(session(pid, role=role), role_oid=number)


def meaning(*roles: str, mode: Mode = Mode.ENFORCE) -> Policy:
    return policy(match=replace(IDLE_10M, selector=Selector(role=globs(*roles))), mode=mode)


def left_out(seen: Snapshot, *policies: Policy) -> tuple[int, ...]:
    return unmeant_roles(seen, Rules(policies=policies))


BOTH = snapshot(of("web", WEB), of("batch", BATCH, 101))


@pytest.mark.parametrize(
    ("policies", "unmeant"),
    [
        ([meaning("web")], (BATCH,)),
        ([meaning("web"), meaning("ba*")], ()),
        ([meaning("web", mode=Mode.DRY_RUN)], (BATCH,)),
        ([meaning("web", mode=Mode.DISABLED)], (WEB, BATCH)),
        ([meaning("web"), policy()], ()),
        ([], (WEB, BATCH)),
    ],
)
def test_a_role_is_left_out_when_no_policy_that_is_not_off_means_it(
    policies: list[Policy], unmeant: tuple[int, ...]
) -> None:
    assert left_out(BOTH, *policies) == unmeant


@pytest.mark.parametrize("unknown", [of(None, BATCH), of("batch", None)])
def test_a_role_of_which_something_is_not_known_is_looked_at(unknown: Session) -> None:
    assert left_out(snapshot(unknown), meaning("web")) == ()


def test_where_there_are_too_many_those_with_the_most_sessions_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST", 1)
    pool = [of("batch", BATCH, 101 + number) for number in range(2)]
    assert left_out(snapshot(of("report", WEB), *pool), meaning("web")) == (BATCH,)


@PROPERTY
@given(worlds())
def test_no_policy_means_anybody_whose_role_is_left_out(world: World) -> None:
    numbers = {
        name: number for number, name in enumerate({one.identity.role for one in world.snapshot.sessions})
    }
    seen = replace(
        world.snapshot,
        sessions=tuple(replace(one, role_oid=numbers[one.identity.role]) for one in world.snapshot.sessions),
    )
    left = unmeant_roles(seen, world.rules)
    assert not any(world.rules.meaning(one).policies for one in seen.sessions if one.role_oid in left)
