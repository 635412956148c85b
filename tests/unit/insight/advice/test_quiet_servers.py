"""A healthy server gets no findings."""

from dataclasses import replace

from reaper.insight.advice import advise, not_observed
from tests.unit.policy.build import session

from .scenes import evidence, ground, leak, look, pool, role, used


def test_a_server_whose_connections_are_used_gets_no_advice() -> None:
    web = pool(20, idle="5s")
    tools = [
        session(7, application="postgres_exporter", role="monitor", idle="5s"),
        session(8, application="psql", role="alice", idle="3m"),
        session(9, application="pgbouncer", role="app_x", idle="1s"),
    ]
    seen = evidence(
        look([*web, *tools]),
        look([*used(web, after="5s"), *tools], after="5s"),
        look([*used(web, after="10s"), *tools], after="10s"),
        before=ground(role(), opened=1_000),
        ground=ground(role(), opened=1_002, after="10s"),
    )

    assert advise(seen) == ()
    assert list(not_observed(seen)) == []


def test_an_empty_server_gets_no_advice() -> None:
    assert advise(evidence(look([]), look([], after="1s"), ground=ground())) == ()


def test_what_one_snapshot_cannot_show_is_listed() -> None:
    said = " ".join(not_observed(evidence(look(leak(3)))))

    assert "one snapshot" in said
    assert "settings, role limits, replication slots" in said


def test_a_standby_takes_no_settings_of_roles() -> None:
    looks = look([]), look([], after="1s")

    assert "on the primary" in " ".join(
        not_observed(evidence(*looks, ground=replace(ground(), standby=True)))
    )
    assert "on the primary" not in " ".join(not_observed(evidence(*looks, ground=ground())))
