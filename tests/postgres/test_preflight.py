"""The preflight: what is missing is found, and the SQL that it offers really cures it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reaper.policy.protections import BUILT_IN
from reaper.policy.rules import Rules
from reaper.policy.time import Timestamp
from reaper.postgres.errors import Refused
from reaper.postgres.preflight import CheckResult, Level, inspect, refuse

from .conftest import StartServer, StartStage
from .reaping import Reaper, policy
from .sandbox import Role
from .stage import Stage
from .waiting import until

ENFORCING: Final = Rules(policies=(policy("web"),))
STATS: Final = "pg_read_all_stats"
SIGNAL: Final = "pg_signal_backend"


def findings(
    reaper: Reaper, rules: Rules | None = ENFORCING, *, dry_run: bool = False
) -> dict[str, CheckResult]:
    """The worst finding of each check."""
    rank = list(Level)
    found = inspect(reaper.link, reaper.probe, rules, dry_run=dry_run)
    return {finding.check: finding for finding in sorted(found, key=lambda found: rank.index(found.level))}


def level(stage: Stage, role: Role, check: str, *, dry_run: bool = False) -> Level:
    """The level of one check for a new connection of this role."""
    return findings(stage.open_reaper(role), dry_run=dry_run)[check].level


def mend(stage: Stage, finding: CheckResult) -> None:
    """Run what a finding offers as a superuser would, statement by statement."""
    assert finding.fix
    for statement in finding.fix.split(";"):
        stage.admin.execute(statement.encode())


@pytest.mark.parametrize(
    ("groups", "options", "visibility", "rights"),
    [
        ([], "", Level.REFUSAL, Level.REFUSAL),
        ([STATS], "", Level.FINE, Level.REFUSAL),
        ([SIGNAL], "", Level.REFUSAL, Level.FINE),
        ([STATS, SIGNAL], "", Level.FINE, Level.FINE),
        ([STATS, SIGNAL], "NOINHERIT", Level.REFUSAL, Level.REFUSAL),
        ([], "SUPERUSER", Level.FINE, Level.FINE),
        (["pg_monitor"], "", Level.FINE, Level.REFUSAL),
    ],
)
def test_a_missing_privilege_is_refused_and_its_fix_works(
    stage: Stage, groups: Sequence[str], options: LiteralString, visibility: Level, rights: Level
) -> None:
    role = stage.sandbox.role("candidate", member_of=groups, options=options)

    found = findings(stage.open_reaper(role))

    assert (found["visibility"].level, found["rights"].level) == (visibility, rights)
    for check in ("visibility", "rights"):
        if found[check].level is not Level.FINE:
            mend(stage, found[check])
            assert level(stage, role, check) is Level.FINE
    refuse(tuple(findings(stage.open_reaper(role)).values()))


def test_all_refusals_are_reported_at_once_with_their_fixes(stage: Stage) -> None:
    blind = stage.open_reaper(stage.sandbox.role("blind"))

    with pytest.raises(Refused) as refusal:
        refuse(tuple(findings(blind).values()))

    assert "hide their state" in str(refusal.value)
    assert "GRANT pg_read_all_stats TO" in str(refusal.value)
    assert "GRANT pg_signal_backend TO" in str(refusal.value)
    assert ";;" not in str(refusal.value)


def test_a_dry_run_needs_no_right_to_signal(stage: Stage) -> None:
    role = stage.sandbox.role("rehearser", member_of=[STATS])
    reaper = stage.open_reaper(role)

    assert findings(reaper, dry_run=True)["rights"].level is Level.WARNING
    assert findings(reaper, rules=None)["rights"].level is Level.WARNING


def test_a_superuser_is_warned_of_its_power(stage: Stage) -> None:
    root = stage.open_reaper(stage.sandbox.role("root", options="SUPERUSER"))

    found = findings(root)

    assert found["power"].level is Level.WARNING
    assert found["protections"].finding == "superusers: not in force, the reaper is one itself"


@pytest.mark.parametrize("attribute", ["CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS"])
def test_a_needless_attribute_is_found_and_its_fix_works(stage: Stage, attribute: LiteralString) -> None:
    role = stage.sandbox.role("mighty", member_of=[STATS, SIGNAL], options=attribute)

    found = findings(stage.open_reaper(role))["power"]

    assert found.level is Level.WARNING
    assert f"({attribute})" in found.finding
    mend(stage, found)
    assert level(stage, role, "power") is Level.FINE


@pytest.mark.parametrize(
    "group",
    ["pg_read_server_files", "pg_write_server_files", "pg_execute_server_program", "pg_write_all_data"],
)
@pytest.mark.parametrize("options", ["INHERIT", "NOINHERIT"])
def test_a_needless_membership_is_found_and_its_fix_works(
    stage: Stage, group: str, options: LiteralString
) -> None:
    if group == "pg_write_all_data" and stage.server.major < 14:
        group = "pg_write_server_files"
    role = stage.sandbox.role("mighty", member_of=[STATS, SIGNAL, group], options=options)

    found = findings(stage.open_reaper(role))["power"]

    assert found.level is Level.WARNING
    assert f"(member of {group})" in found.finding
    mend(stage, found)
    assert level(stage, role, "power") is Level.FINE


def test_a_managed_services_own_kind_of_superuser_is_needless_power(stage: Stage) -> None:
    almighty = stage.sandbox.role("almighty", name="rds_superuser")
    role = stage.sandbox.role("member", member_of=[STATS, SIGNAL, almighty.name])

    assert "(member of rds_superuser)" in findings(stage.open_reaper(role))["power"].finding


@pytest.mark.parametrize("options", ["SUPERUSER", "CREATEROLE", "IN ROLE pg_read_server_files"])
def test_rights_through_another_role_are_found_and_the_fix_works(
    stage: Stage, options: LiteralString
) -> None:
    mighty = stage.sandbox.role("mighty", options=options)
    between = stage.sandbox.role("between", member_of=[mighty.name])
    role = stage.sandbox.role("member", member_of=[STATS, SIGNAL, between.name])

    found = findings(stage.open_reaper(role))["power"]

    assert found.level is Level.WARNING
    assert f"(member of {between.name})" in found.finding
    mend(stage, found)
    assert level(stage, role, "power") is Level.FINE


def test_the_reapers_own_role_passes_with_notes_at_most(stage: Stage) -> None:
    found = findings(stage.reaper)

    assert {finding.level for finding in found.values()} <= {Level.FINE, Level.NOTE}
    assert found["pooler"].level is Level.FINE
    assert found["version"].finding == f"PostgreSQL {stage.server.major}"
    assert found["server"].finding.startswith("a primary, up since ")
    assert found["clock"].level is Level.FINE


@pytest.mark.parametrize(
    ("check", "otherwise", "level"),
    [
        ("pooler", {"pid": 1}, Level.REFUSAL),
        ("version", {"version": 120_022}, Level.REFUSAL),
        ("version", {"version": 190_000}, Level.WARNING),
        ("server", {"standby": True}, Level.NOTE),
        ("clock", {"clock": Timestamp(0)}, Level.NOTE),
    ],
)
def test_a_server_that_says_otherwise_of_itself_is_judged_by_that(
    stage: Stage, check: str, otherwise: Mapping[str, Any], level: Level
) -> None:
    told = inspect(stage.reaper.link, replace(stage.reaper.probe, **otherwise), None, dry_run=True)

    assert [finding.level for finding in told if finding.check == check] == [level]


def test_a_role_without_a_connection_limit_is_reported_with_the_fix(stage: Stage) -> None:
    found = inspect(stage.reaper.link, stage.reaper.probe, None, dry_run=True)

    (finding,) = [finding for finding in found if "CONNECTION LIMIT" in finding.fix]
    mend(stage, finding)
    assert stage.open_reaper().probe.connection_limit == 3


def test_from_16_on_the_fix_for_full_slots_is_reported_and_works(
    start_server: StartServer,
) -> None:
    server = start_server(max_connections="12")
    dsn = make_conninfo(server.dsn, user="reaper")
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE app LOGIN")
        admin.execute("CREATE ROLE reaper LOGIN IN ROLE pg_read_all_stats, pg_signal_backend")
        found = slots(dsn)
        if server.major < 16:
            assert found.level is Level.FINE
            return
        assert found.level is Level.NOTE
        for statement in found.fix.split(";"):
            admin.execute(statement.encode())
    server.restart()

    with ExitStack() as everybody:
        with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
            fill(everybody, make_conninfo(server.dsn, user="app"), 12)

        assert slots(dsn).level is Level.FINE


def slots(dsn: str) -> CheckResult:
    with Reaper(dsn) as reaper:
        return next(
            finding
            for finding in inspect(reaper.link, reaper.probe, None, dry_run=True)
            if finding.check == "slots"
        )


def fill(everybody: ExitStack, dsn: str, count: int) -> None:
    for _ in range(count):
        everybody.enter_context(psycopg.connect(dsn))


def test_track_activities_off_is_found_and_its_fix_works(start_stage: StartStage) -> None:
    stage = start_stage(track_activities="off")
    client = stage.open()
    found = findings(stage.reaper)["track_activities"]

    assert found.level is Level.WARNING
    assert stage.reaper.see(client).state == "disabled"
    mend(stage, found)
    until(lambda: stage.open_reaper().probe.tracks_activities)


def test_sessions_that_are_not_tracked_are_counted(stage: Stage) -> None:
    role = stage.sandbox.role("untracked")
    stage.set(role, "track_activities", "off")
    stage.open(role=role)

    found = findings(stage.open_reaper())["track_activities"]

    assert found.level is Level.NOTE
    assert found.finding == "1 sessions have track_activities switched off, and are skipped"
    mend(stage, found)


def test_overridden_protections_are_reported_beside_those_in_force(stage: Stage) -> None:
    aside = Rules(policies=(policy("web", overrides=["listeners"]),))
    told = inspect(stage.reaper.link, stage.reaper.probe, aside, dry_run=True)

    of_protections = [found for found in told if found.check == "protections"]

    assert [found.finding.split(":")[0] for found in of_protections] == list(BUILT_IN)
    assert [found.finding for found in of_protections if found.level is Level.NOTE] == [
        "listeners: overridden by test"
    ]
