"""The command meets a server that cannot prove who it is: it says why, and goes on when it can."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.postgres.sandbox import Role
from tests.postgres.server import Server
from tests.postgres.tls import Front, issued, root_of

from .command import Reaper
from .policies import FILE, leaked, policy_file
from .service import RECORD, events


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def front(server: Server, ca: trustme.CA) -> Iterator[Front]:
    with Front(server.dsn, issued(ca)) as front:
        yield front


@pytest.fixture
def guarded(
    reaper: Reaper, reaper_role: Role, app: Role, ca: trustme.CA, front: Front, tmp_path: Path
) -> Reaper:
    """The command, which believes only that authority."""
    reaper.environment["REAPER_DSN"] = front.guarded(reaper_role.dsn, root_of(ca, tmp_path))
    reaper.write(FILE, policy_file(leaked(app)))
    return reaper


def test_once_is_0_when_the_server_proves_who_it_is_and_3_with_the_cause_when_it_does_not(
    guarded: Reaper, front: Front, ca: trustme.CA
) -> None:
    assert guarded("once", *RECORD).code == 0

    front.present(issued(ca, valid=(-9, -1)))
    expired = guarded("once", *RECORD)
    front.present(issued(ca, "db.example"))
    misnamed = guarded("once", *RECORD)

    assert (expired.code, misnamed.code) == (3, 3)
    assert "certificate has expired: renew it at the server" in expired.err
    assert "connect by a name in the certificate" in misnamed.err


def test_run_waits_while_the_certificate_is_expired_and_goes_on_by_itself_when_it_is_renewed(
    guarded: Reaper, front: Front, ca: trustme.CA
) -> None:
    front.present(issued(ca, valid=(-9, -1)))
    life = guarded.start("run", *RECORD, "--listen", "off", "--log-level", "debug")
    life.logged("server.unreachable", times=2)

    front.present(issued(ca))
    life.logged("cycle.quiet")

    assert all("certificate has expired" in told["why"] for told in events(life, "server.unreachable"))
    assert life.end().code == 0
