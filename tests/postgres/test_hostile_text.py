"""Names and queries are data: whatever a client sends, every session is observed correctly."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from reaper.policy.match import Match
from reaper.policy.plan import Candidate, Result, Skip
from reaper.policy.selector import Glob, Selector
from reaper.policy.session import IDLE
from reaper.postgres.preflight import Level, inspect
from reaper.postgres.query_text import QueryText

from .clients import Client
from .reaping import AT_ONCE, NOW, Reaper, policy, seen
from .stage import Stage

HOSTILE: Final = (
    "new\nline",
    "esc\x1b[31mape",
    "quo'te\"s",
    "back\\slash",
    "per%cent %s {brace}",
    "bidi\u202e\u2066",
    "'; DROP TABLE x; --",
    "é" * 26,
    "日本語" * 5,
)
NOT_UTF8: Final = b"\xff\xfe\xc3"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_role_and_a_database_of_any_name_are_seen_under_it_and_can_be_reaped(
    stage: Stage, name: str
) -> None:
    role, database = stage.sandbox.role(name), stage.sandbox.create_database(name)
    client = stage.open(role=role, database=database)
    by_name = policy(stage.application, Match(states=(IDLE,), idle_for=NOW))

    candidate = stage.reaper.chosen(client, by_name)

    assert candidate.session.identity.role == role.name
    assert candidate.session.identity.database == database
    assert stage.reaper.act(candidate).result is Result.TERMINATED


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[31mape", "é", "'quotes\""])
def test_an_application_name_is_seen_as_the_server_cleaned_it(stage: Stage, name: str) -> None:
    client = stage.open(application=stage.sandbox.name(name))

    seen_as = stage.reaper.see(client).identity.application

    told = stage.admin.execute("SELECT application_name FROM pg_stat_activity WHERE pid = %s", (client.pid,))
    assert told.fetchone() == (seen_as,)


def test_names_are_cut_where_the_server_cuts_them(stage: Stage) -> None:
    application = stage.sandbox.name("a" * 100)
    client = stage.open(application=application)

    assert stage.reaper.see(client).identity.application == application[:63]


@contextmanager
def renamed(stage: Stage, role: str, name: bytes) -> Iterator[None]:
    """Give a role a name that is no text, from a database without an encoding."""
    database = stage.sandbox.create_database("ascii", encoding="SQL_ASCII")
    to, back = (b'ALTER ROLE "%s" RENAME TO "%s"' % names for names in _there_and_back(role, name))
    with psycopg.connect(
        make_conninfo(stage.server.dsn, dbname=database, client_encoding="SQL_ASCII"), autocommit=True
    ) as raw:
        raw.execute(to)
        try:
            yield
        finally:
            raw.execute(back)


def _there_and_back(role: str, name: bytes) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    plain = role.encode()
    return (plain, plain + name), (plain + name, plain)


def test_a_role_name_that_is_not_utf8_hides_no_session(stage: Stage) -> None:
    odd, usual = stage.open(role=stage.sandbox.role("odd")), stage.open()
    name = stage.sandbox.name("odd")
    with renamed(stage, name, NOT_UTF8):
        snapshot = stage.reaper.look()

        assert seen(snapshot, odd).identity.role == rf"{name}\xff\xfe\xc3"
        assert seen(snapshot, usual).identity.role == stage.app.name
        assert snapshot.unreadable == 0
        assert stage.reaper.act(stage.reaper.chosen(odd, policy(stage.application))).result is (
            Result.TERMINATED
        )


def test_a_reaper_whose_own_name_is_no_utf8_works_and_protects_itself(stage: Stage) -> None:
    client = stage.open()
    with renamed(stage, stage.role.name, NOT_UTF8):
        snapshot = stage.reaper.look()

        (own,) = [s for s in snapshot.sessions if s.id.pid == stage.reaper.link.pid]
        assert own.identity.role == rf"{stage.role.name}\xff\xfe\xc3"
        assert stage.reaper.act(stage.reaper.chosen(client, policy(stage.application))).result is (
            Result.TERMINATED
        )


@pytest.mark.parametrize("query_text", list(QueryText))
def test_invalid_bytes_in_a_query_hide_no_session(stage: Stage, query_text: QueryText) -> None:
    database = stage.sandbox.create_database("ascii", encoding="SQL_ASCII")
    odd, usual = stage.open(database=database), stage.open()
    say(odd, b"SELECT 1 AS caf\xe9, '\xff\xfe'")
    in_utf8 = stage.open_reaper(query_text=query_text)
    with Reaper(make_conninfo(stage.role.dsn, dbname=database), query_text=query_text) as in_ascii:
        for reaper in (in_utf8, in_ascii):
            snapshot = reaper.look()

            assert seen(snapshot, usual).identity.role == stage.app.name
            assert seen(snapshot, odd).query == {
                QueryText.NONE: None,
                QueryText.SHAPE: r"SELECT ? AS caf\xe9, ?...",
                QueryText.FULL: r"SELECT 1 AS caf\xe9, '\xff\xfe'",
            }.get(query_text)


def say(client: Client, statement: bytes) -> None:
    client.connection.pgconn.exec_(statement)


@pytest.mark.parametrize(
    "cut", [b"LISTEN \xff\xfe", b"SELECT 'pg_backup_start(\xff'", b"\xc3", b"SELECT 'x'" + b"\xe6\x97" * 600]
)
def test_bytes_that_are_no_text_do_not_confuse_what_is_worked_out_in_the_server(
    stage: Stage, cut: bytes
) -> None:
    database = stage.sandbox.create_database("ascii", encoding="SQL_ASCII")
    odd, usual = stage.open(database=database), stage.open()
    with suppress(psycopg.Error):
        say(odd, cut)

    session = stage.reaper.see(odd)

    assert session.last_query_listens == cut.startswith(b"LISTEN")
    assert session.last_query_starts_backup == (b"pg_backup_start(" in cut)
    stage.reaper.chosen(usual, policy(stage.application))


@pytest.mark.parametrize(("encoding", "name"), [("LATIN1", "crème"), ("WIN1251", "волк"), ("EUC_JP", "日本")])
def test_in_a_database_of_another_encoding_names_are_read_in_it(
    stage: Stage, encoding: str, name: str
) -> None:
    database = stage.sandbox.create_database("other", encoding=encoding)
    with psycopg.connect(
        make_conninfo(stage.server.dsn, dbname=database, client_encoding="UTF8"), autocommit=True
    ) as owner:
        role = stage.sandbox.name("x")
        stage.sandbox.role("x")
        owner.execute(SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role), Identifier(role + name)))
        try:
            with Reaper(make_conninfo(stage.role.dsn, dbname=database)) as reaper:
                ((shown,),) = reaper.rows(
                    "SELECT rolname FROM pg_catalog.pg_roles WHERE pg_catalog.starts_with(rolname, %s)",
                    (role,),
                )
                assert shown == role + name
                assert Glob(role + name).matches(shown)
        finally:
            owner.execute(SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role + name), Identifier(role)))


def test_a_client_encoding_that_cannot_express_a_name_fails_no_snapshot(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = stage.open(role=stage.sandbox.role("волк"))
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with Reaper(stage.role.dsn) as reaper:
        assert reaper.see(client).identity.role == stage.sandbox.name("волк")


def test_a_finding_about_a_role_of_any_name_is_a_sentence(stage: Stage) -> None:
    role = stage.sandbox.role('quo"te')
    blind = stage.open_reaper(role)

    findings = inspect(blind.link, blind.probe, None, dry_run=True)

    (refusal,) = [found for found in findings if found.level is Level.REFUSAL]
    stage.admin.execute(refusal.fix.encode())
    assert stage.open_reaper(role).probe.reads_all
    assert stage.open_reaper(role).chosen(stage.open(), policy(stage.application, AT_ONCE)).reason


def rename(client: Client, name: str) -> None:
    client.connection.execute(SQL("SET application_name = {}").format(Literal(name)))


@pytest.mark.parametrize(
    ("allowlist", "is_fooled"),
    [
        (Selector(application=(Glob("metabase"),)), True),
        (Selector(role=(Glob("metabase"),)), False),
    ],
    ids=["by application", "by role"],
)
def test_an_allowlist_by_application_can_be_forged_and_one_by_role_cannot(
    stage: Stage, allowlist: Selector, *, is_fooled: bool
) -> None:
    liar = stage.open()
    rename(liar, "metabase")
    match = replace(AT_ONCE, selector=Selector(role=(Glob(stage.app.name),)))

    decision = stage.reaper.decision(liar, replace(policy("*"), match=match, allowlist=allowlist))

    assert isinstance(decision, Skip if is_fooled else Candidate)


def test_a_client_that_takes_a_matching_name_endangers_itself_alone(stage: Stage) -> None:
    liar, bystander = stage.open(application="honest"), stage.open(application="honest")
    rename(liar, stage.application)

    assert stage.reaper.act(stage.reaper.chosen(liar, policy(stage.application))).result is Result.TERMINATED
    assert bystander.alive()
