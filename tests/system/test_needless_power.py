"""A role that can more than the reaper needs is warned of, and served."""

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests.postgres.sandbox import Role

from .command import Reaper
from .policies import FILE, leaked, policy_file
from .service import RECORD, events


@pytest.fixture
def mighty(reaper: Reaper, app: Role, reaper_role: Role, admin: psycopg.Connection) -> Reaper:
    admin.execute(SQL("ALTER ROLE {} CREATEDB").format(Identifier(reaper_role.name)))
    reaper.write(FILE, policy_file(leaked(app)))
    return reaper


def test_run_says_it_in_one_line_with_the_cure_and_goes_on(mighty: Reaper, reaper_role: Role) -> None:
    life = mighty.start("run", *RECORD, "--listen", "off", "--log-level", "debug")
    life.logged("cycle.quiet")

    (told,) = events(life, "server.finding")

    assert told["level"] == "warning"
    assert "more rights than it needs (CREATEDB)" in told["finding"]
    assert told["hint"] == f"ALTER ROLE {Identifier(reaper_role.name).as_string()} NOCREATEDB;"


def test_once_says_it_too_and_its_answer_is_yes(mighty: Reaper) -> None:
    done = mighty("once", *RECORD)

    assert done.code == 0
    assert [line["finding"] for line in done.log if line["event"] == "server.finding"]


def test_check_says_it_and_only_strict_makes_it_a_no(mighty: Reaper) -> None:
    check, strict = mighty("check", "--output", "json"), mighty("check", "--strict")

    (found,) = [row for row in check.document["findings"] if row["check"] == "power"]
    assert (check.code, strict.code, found["level"]) == (0, 1, "warning")
