"""Every session of a running pg_dump is protected as a backup."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from reaper.policy.match import Match
from reaper.policy.plan import Candidate, Skip
from reaper.policy.session import ACTIVE, IN_TRANSACTION, Session

from .reaping import NOW, policy
from .stage import Stage
from .waiting import until

ANYHOW: Final = Match(states=(ACTIVE, IN_TRANSACTION), transaction_for=NOW)
# Rows that pg_dump can read only with an advisory lock: it stops there until the test releases the lock.
DATA: Final = """
    CREATE FUNCTION may_read() RETURNS bool LANGUAGE sql AS 'SELECT pg_advisory_lock_shared(99) IS NOT NULL';
    CREATE TABLE one AS SELECT 1 AS id;
    CREATE TABLE two AS SELECT 2 AS id;
    ALTER TABLE one ENABLE ROW LEVEL SECURITY;
    ALTER TABLE one FORCE ROW LEVEL SECURITY;
    ALTER TABLE two ENABLE ROW LEVEL SECURITY;
    ALTER TABLE two FORCE ROW LEVEL SECURITY;
    CREATE POLICY slowly ON one USING (SCHEMA.may_read());
    CREATE POLICY slowly ON two USING (SCHEMA.may_read());
"""


@contextmanager
def dumping(stage: Stage, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A dump of the test's database by its owner that gets no further than the first row."""
    program = stage.server.binary("pg_dump")
    if program is None:
        pytest.skip("there is no pg_dump for this server")
    dsn = make_conninfo(stage.app.dsn, dbname=stage.sandbox.database)
    with stage.open(database=stage.sandbox.database, application="holder").connection as holder:
        holder.execute("SELECT pg_advisory_lock(99)")
        command = [str(program), "--enable-row-security", *options, dsn]
        quiet = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL) as dump:
            try:
                yield dump
            finally:
                holder.execute("SELECT pg_advisory_unlock_all()")
                dump.wait()


def dump_sessions(stage: Stage) -> list[Session]:
    return [
        session
        for session in stage.reaper.look().sessions
        if session.identity.application == "pg_dump" and session.identity.database == stage.sandbox.database
    ]


def waits(stage: Stage) -> list[str]:
    """What the dump's sessions wait for; a blocked one waits for the lock."""
    return sorted(str(session.wait_event) for session in dump_sessions(stage))


def decisions(stage: Stage, *overrides: str) -> list[Candidate | Skip]:
    mine = policy("pg_dump", ANYHOW, overrides=overrides)
    ids = {session.id for session in dump_sessions(stage)}
    return [decision for decision in stage.reaper.plan(mine).decisions if decision.session.id in ids]


@pytest.fixture
def stage_with_data(stage: Stage) -> Stage:
    owner, schema = Identifier(stage.app.name), Identifier(stage.app.name)
    with psycopg.connect(
        make_conninfo(stage.server.dsn, dbname=stage.sandbox.database), autocommit=True
    ) as admin:
        admin.execute(SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(schema, owner))
    with stage.open(database=stage.sandbox.database, application="owner").connection as connection:
        connection.execute(DATA.replace("SCHEMA.", f"{stage.app.name}.").encode())
    return stage


def test_a_running_pg_dump_is_skipped_and_completes(stage_with_data: Stage) -> None:
    stage = stage_with_data
    with dumping(stage) as dump:
        until(lambda: waits(stage) == ["advisory"])

        (skip,) = decisions(stage)

        assert isinstance(skip, Skip)
        assert skip.protection == "backups"
        assert skip.reason == "protected: backup tool 'pg_dump'"
    assert dump.returncode == 0


def test_every_session_of_a_parallel_pg_dump_is_skipped_with_its_idle_leader(
    stage_with_data: Stage, tmp_path: Path
) -> None:
    stage = stage_with_data
    with dumping(stage, "--format=directory", "--jobs=2", f"--file={tmp_path / 'dump'}") as dump:
        until(lambda: waits(stage) == ["ClientRead", "advisory", "advisory"])

        skips = decisions(stage)

        assert [getattr(skip, "protection", None) for skip in skips] == ["backups"] * 3
        assert {skip.session.state: skip.session.xid_age is None for skip in skips}[IN_TRANSACTION] is False
    assert dump.returncode == 0
