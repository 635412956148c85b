"""What is said of a connection that failed holds no piece of a secret."""

import asyncio
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Final

import pytest

from reaper.postgres.connection import Connection, name_of
from reaper.postgres.errors import Unreachable

PIECE: Final = "rest-of-it"


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://reaper:begin@{PIECE}@db.invalid/postgres",
        f"postgresql://reaper:begin/{PIECE}@db.invalid/postgres",
        f"postgresql://reaper:7/{PIECE}@db.invalid/postgres",
        f"postgres://reaper:{PIECE}/7@db.invalid/postgres",
        f"host=db.invalid port={PIECE}",
    ],
)
def test_a_connection_string_that_libpq_would_misread_is_refused_and_no_piece_is_repeated(dsn: str) -> None:
    with pytest.raises(ValueError, match="write @ as %40") as named:
        name_of(dsn)
    with pytest.raises(Unreachable) as opened:
        asyncio.run(Connection.open(dsn))

    assert PIECE not in f"{named.value} {opened.value}"
    assert "cannot be read" in str(opened.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://reaper:a%40b%2Fc@db-1/postgres",
        "postgresql://db-1:5432/postgres?user=me@tenant",
        "postgresql://db-1,db-2:5432,5433/postgres",
        "postgresql://db-1/a%40b",
        "host=db-1,db-2 port=,5433 dbname=a@b user=me@tenant",
        "host=@abstract",
    ],
)
def test_a_connection_string_with_an_at_sign_in_its_place_is_read(dsn: str) -> None:
    assert name_of(dsn)


class Parrot(ThreadingTCPServer):
    """No server: it asks for a password in the clear, and repeats it in its refusal."""

    daemon_threads = True


class Repeating(BaseRequestHandler):
    def handle(self) -> None:
        with self.request.makefile("rwb") as link:
            link.read(int.from_bytes(link.read(4)) - 4)
            link.write(b"R" + (8).to_bytes(4) + (3).to_bytes(4))
            link.flush()
            link.read(1)
            password = link.read(int.from_bytes(link.read(4)) - 4)
            said = b"SFATAL\0C28P01\0Mno " + password + b"\0"
            link.write(b"E" + (len(said) + 4).to_bytes(4) + said)


def test_a_password_that_the_server_repeats_is_not_repeated_by_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Parrot(("127.0.0.1", 0), Repeating) as parrot:
        Thread(target=parrot.serve_forever, args=(0.01,), daemon=True).start()
        port = parrot.server_address[1]
        passfile = tmp_path / "pgpass"
        passfile.write_text(f"*:*:*:*:{PIECE}\n", encoding="ascii")
        passfile.chmod(0o600)
        where = f"host=127.0.0.1 port={port} user=reaper dbname=postgres sslmode=disable"
        said = [refusal_by(dsn) for dsn in (f"{where} password={PIECE}", f"{where} passfile={passfile}")]
        monkeypatch.setenv("PGPASSWORD", PIECE)
        said.append(refusal_by(where))
        parrot.shutdown()

    assert ["no ***" in each for each in said] == [True] * 3
    assert PIECE not in str(said)


def refusal_by(dsn: str) -> str:
    with pytest.raises(Unreachable) as refused:
        asyncio.run(Connection.open(dsn))
    return str(refused.value)
