"""A server that cannot prove its identity is refused with the cause and the fix; weak TLS gives a warning."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import trustme
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from reaper.demo.server import EmbeddedServer
from reaper.postgres.audit_table import CopyWeakness, RecordTable
from reaper.postgres.connection import Connection
from reaper.postgres.errors import Unreachable
from reaper.postgres.preflight import CheckResult, Level, inspect
from reaper.postgres.tls import NetworkPath

from .reaping import Reaper
from .sandbox import Role, Sandbox
from .server import Server
from .tls import NAME, Front, issued, root_of, written
from .waiting import until

Certify = Callable[[trustme.CA], trustme.LeafCert]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def root(ca: trustme.CA, tmp_path: Path) -> Path:
    return root_of(ca, tmp_path)


@pytest.fixture
def front(server: Server, ca: trustme.CA) -> Iterator[Front]:
    with Front(server.dsn, issued(ca)) as front:
        yield front


def way_found(dsn: str) -> CheckResult:
    with Reaper(dsn) as reaper:
        found = inspect(reaper.link, reaper.probe, None, dry_run=True)
        assert reaper.link.path.encrypted
    return next(each for each in found if each.check == "network")


def refusal(dsn: str) -> str:
    with pytest.raises(Unreachable) as refused:
        Reaper(dsn)
    return str(refused.value)


def test_a_certificate_of_the_authority_with_the_right_name_is_accepted(
    front: Front, reaper_role: Role, root: Path
) -> None:
    assert way_found(front.guarded(reaper_role.dsn, root)).level is Level.FINE


@pytest.mark.parametrize(
    ("certify", "cause", "what"),
    [
        pytest.param(
            lambda ca: issued(ca, valid=(-9, -1)), "certificate has expired", "renew it", id="expired"
        ),
        pytest.param(
            lambda ca: issued(ca, valid=(1, 9)), "certificate is not yet valid", "clock", id="not yet valid"
        ),
        pytest.param(
            lambda _: issued(trustme.CA()),
            "unable to get local issuer certificate",
            "must hold the CA that issued it",
            id="another authority",
        ),
        pytest.param(
            lambda ca: issued(ca, "db.example"),
            f'certificate for "db.example" does not match host name "{NAME}"',
            "connect by a name in the certificate",
            id="another name",
        ),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused_with_its_cause_and_what_to_do(
    front: Front, ca: trustme.CA, reaper_role: Role, root: Path, certify: Certify, cause: str, what: str
) -> None:
    front.present(certify(ca))

    said = refusal(front.guarded(reaper_role.dsn, root))

    assert cause in said
    assert what in said
    assert "\n" not in said


def test_an_authority_that_is_not_there_is_refused_and_nothing_weaker_is_advised(
    front: Front, reaper_role: Role, tmp_path: Path
) -> None:
    said = refusal(front.guarded(reaper_role.dsn, tmp_path / "nowhere.crt"))

    assert "nowhere.crt\" does not exist; name the file of the CA's certificate by sslrootcert" in said
    assert "disable" not in said


def test_an_authority_that_cannot_be_read_is_refused_in_words(
    front: Front, reaper_role: Role, tmp_path: Path
) -> None:
    rubbish = tmp_path / "rubbish.crt"
    rubbish.write_text("no certificate", encoding="ascii")

    assert 'could not read root certificate file "' in refusal(front.guarded(reaper_role.dsn, rubbish))


def test_a_client_certificate_is_accepted_and_its_absence_is_reported(
    front: Front, ca: trustme.CA, reaper_role: Role, root: Path, tmp_path: Path
) -> None:
    front.ask_for_certificates_of(ca)
    dsn = front.guarded(reaper_role.dsn, root, **written(issued(ca, "reaper"), tmp_path))

    assert way_found(dsn).level is Level.FINE
    assert "name ours by sslcert and sslkey" in refusal(front.guarded(reaper_role.dsn, root))


def test_a_client_certificate_that_the_server_does_not_accept_is_reported(
    front: Front, ca: trustme.CA, reaper_role: Role, root: Path, tmp_path: Path
) -> None:
    front.ask_for_certificates_of(ca)
    strange = written(issued(trustme.CA(), "reaper"), tmp_path)

    said = refusal(front.guarded(reaper_role.dsn, root, **strange))

    assert "the server does not accept our certificate" in said


def test_a_key_that_others_can_read_is_refused_with_the_permissions_that_it_needs(
    front: Front, ca: trustme.CA, reaper_role: Role, root: Path, tmp_path: Path
) -> None:
    open_to_all = written(issued(ca, "reaper"), tmp_path, mode=0o644)

    said = refusal(front.guarded(reaper_role.dsn, root, **open_to_all))

    assert "has group or world access" in said
    assert "0600" in said


def test_channel_binding_detects_a_proxy_that_ends_tls_whatever_its_certificate(
    front: Front, reaper_role: Role, root: Path
) -> None:
    said = refusal(front.guarded(reaper_role.dsn, root, channel_binding="require", password="any"))  # noqa: S106

    assert "a proxy or an attacker on the path ends TLS" in said


def test_a_server_without_tls_is_refused_with_the_fix_and_one_with_tls_is_accepted(
    own_server: EmbeddedServer, ca: trustme.CA, root: Path
) -> None:
    with psycopg.connect(own_server.dsn, autocommit=True) as admin:
        dsn = f"{own_server.dsn} sslmode=verify-full sslrootcert={root} host={NAME} hostaddr=127.0.0.1"
        assert "switch it on at the server (ssl = on)" in refusal(dsn)
        if b"SSL_CTX_new" not in (own_server.binaries / "bin" / "postgres").read_bytes():
            return  # the wheel's; those of --majors but 16 and 18 are built with it
        certificate, owner = issued(ca), own_server.data.stat()
        files = {
            "server.crt": certificate.cert_chain_pems[0].bytes(),
            "server.key": certificate.private_key_pem.bytes(),
        }
        for name, content in files.items():
            path = own_server.data / name
            path.write_bytes(content)
            path.chmod(0o600)
            os.chown(path, owner.st_uid, owner.st_gid)
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("CREATE ROLE bound LOGIN PASSWORD 'any' IN ROLE pg_read_all_stats")
        hba = own_server.data / "pg_hba.conf"
        hba.write_text(
            f"hostssl all bound 127.0.0.1/32 scram-sha-256\n{hba.read_text('utf-8')}", encoding="utf-8"
        )
        admin.execute("ALTER SYSTEM SET password_encryption = 'scram-sha-256'")
        admin.execute("SELECT pg_reload_conf()")
        until(lambda: admin.execute("SHOW password_encryption").fetchone() == ("scram-sha-256",))
        admin.execute("ALTER ROLE bound PASSWORD 'any'")

    assert way_found(dsn).level is Level.FINE
    bound = f"host=127.0.0.1 port={own_server.port} dbname=postgres user=bound password=any"
    assert way_found(f"{bound} channel_binding=require").level is Level.FINE


def way(**otherwise: str) -> NetworkPath:
    named = {key: otherwise.pop(key) for key in ("host", "address") if key in otherwise}
    encrypted = bool(otherwise.pop("encrypted", ""))
    return NetworkPath(
        **{"host": "db-1", "address": "10.0.0.1", **named}, encrypted=encrypted, options=otherwise
    )


@pytest.mark.parametrize(
    "guarded",
    [
        way(host="/var/run/postgresql", address=""),
        way(host="@abstract", address=""),
        way(host="localhost", address="127.0.0.1"),
        way(host="::1", address="::1"),
        way(encrypted="yes", sslmode="verify-full"),
        way(encrypted="yes", sslmode="require", channel_binding="require"),
        way(gssencmode="require"),
    ],
)
def test_a_safe_network_path_gives_no_warning(guarded: NetworkPath) -> None:
    assert guarded.exposed is None


@pytest.mark.parametrize(
    ("exposed", "words"),
    [
        (way(), "not encrypted"),
        (way(sslmode="prefer"), "not encrypted"),
        (way(sslmode="disable", channel_binding="require"), "not encrypted"),
        (way(address="", host="db-1"), "not encrypted"),
        (way(encrypted="yes"), "certificate is not checked (sslmode=prefer)"),
        (way(encrypted="yes", sslmode="require"), "certificate is not checked (sslmode=require)"),
        (way(encrypted="yes", sslmode="verify-ca"), "name is not checked (sslmode=verify-ca)"),
        (way(encrypted="yes", sslmode="require", channel_binding="prefer"), "certificate is not checked"),
    ],
)
def test_an_exposed_network_path_is_reported_on_one_line(exposed: NetworkPath, words: str) -> None:
    assert words in (exposed.exposed or "")
    assert "\n" not in (exposed.exposed or "")


def test_an_exposed_path_to_the_audit_table_is_reported_with_its_fix(
    sandbox: Sandbox, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_conninfo(server.dsn, dbname=sandbox.database)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA reaper")
        admin.execute("CREATE TABLE reaper.record ()")
    role = sandbox.role("writer")
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(SQL("GRANT USAGE ON SCHEMA reaper TO {}").format(Identifier(role.name)))
    way_in = make_conninfo(role.dsn, dbname=sandbox.database)
    assert asyncio.run(doubts(way_in)) == []

    monkeypatch.setattr(NetworkPath, "local", False)  # no server of these tests is elsewhere
    ((why, mend),) = asyncio.run(doubts(way_in))
    assert "not encrypted" in why
    assert "sslmode=verify-full" in mend


async def doubts(dsn: str) -> list[CopyWeakness]:
    table = RecordTable(await Connection.open(dsn, writes=True))
    try:
        return list(await table.doubts())
    finally:
        await table.close()
