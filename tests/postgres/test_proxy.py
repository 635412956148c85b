"""The proxy that the tests use does what its words say."""

import gc
import socket

import psycopg
import pytest

from .clients import Clients
from .proxy import LINGER_ZERO, Proxy
from .sandbox import Role
from .waiting import until

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def test_it_forwards(proxy: Proxy, clients: Clients, reaper_role: Role) -> None:
    through = clients.open(dsn=proxy.dsn(reaper_role.dsn))

    assert through.run("SELECT current_user") == [(reaper_role.name,)]


def test_a_cut_ends_connections_and_refuses_new_ones_until_restored(proxy: Proxy, clients: Clients) -> None:
    through = clients.open(dsn=proxy.dsn())

    proxy.cut()

    assert not through.alive()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        clients.open(dsn=proxy.dsn())
    until(through.left)
    proxy.restore()
    assert clients.open(dsn=proxy.dsn()).alive()


def test_a_reset_ends_connections_and_welcomes_new_ones(proxy: Proxy, clients: Clients) -> None:
    through = clients.open(dsn=proxy.dsn())

    proxy.reset()

    with pytest.raises(psycopg.OperationalError, match=r"reset|closed"):
        through.wake()
    assert clients.open(dsn=proxy.dsn()).alive()


def test_deaf_it_takes_what_is_said_and_passes_it_on_when_restored(proxy: Proxy) -> None:
    proxy.stall()
    with socket.create_connection(("127.0.0.1", proxy.port)) as link:
        link.sendall(SSL_REQUEST)
        link.settimeout(0.1)
        with pytest.raises(TimeoutError):
            link.recv(1)

        proxy.restore()

        link.settimeout(10)
        assert link.recv(1) in {b"N", b"S"}


def test_deaf_it_keeps_the_connections_that_there_are(proxy: Proxy, clients: Clients) -> None:
    through = clients.open(dsn=proxy.dsn())
    proxy.stall()
    through.connection.pgconn.send_query(b"SELECT 1")
    assert through.present()

    proxy.restore()

    assert through.finish() is None
    assert through.alive()


def test_a_server_that_says_no_farewell_is_no_mishap_of_the_proxy(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with (
            Proxy(f"host=127.0.0.1 port={server.getsockname()[1]}") as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as link,
        ):
            there, _ = server.accept()
            link.sendall(b"?")
            there.recv(1)
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            there.close()
            assert link.recv(1) == b""
        gc.collect()  # which is when asyncio tells of a task that failed and was not asked why

    assert caplog.messages == []
