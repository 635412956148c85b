"""Which servers are ours: those of the file that are meant, or the one of the connection string."""

import pytest

from reaper.config import Server
from reaper.service.fleet import Shard, choose_servers, from_dsn

from .build import BILLING, ORDERS, settings


def test_all_servers_of_the_file_are_meant_unless_one_is_named() -> None:
    both = settings(servers=(ORDERS, BILLING))
    assert choose_servers(both, dsn=None, name=None) == [ORDERS, BILLING]
    assert choose_servers(both, dsn=None, name="billing") == [BILLING]
    assert choose_servers(both, dsn=None, name="nobody") == []


def test_a_shard_has_its_own_share_and_all_shards_have_everything_once() -> None:
    servers = tuple(Server(name=f"shop-{number}", dsn="") for number in range(50))
    shares = [
        choose_servers(settings(servers=servers), dsn=None, name=None, shard=Shard(index, 3))
        for index in range(3)
    ]
    assert sorted(server.name for share in shares for server in share) == sorted(s.name for s in servers)
    assert all(shares)


def test_without_servers_in_the_file_the_connection_string_names_the_server() -> None:
    (server,) = choose_servers(settings(), dsn="host=db-1 port=5433", name=None)
    assert server == Server(name="db-1:5433", dsn="host=db-1 port=5433")


def test_without_both_libpqs_variables_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db-2")
    monkeypatch.setenv("PGPORT", "5434")
    (server,) = choose_servers(settings(), dsn=None, name=None)
    assert server == Server(name="db-2:5434", dsn="")


def test_a_connection_string_that_cannot_be_read_is_refused_without_a_word_of_it() -> None:
    with pytest.raises(ValueError, match="neither") as refused:
        from_dsn("postgresql://reaper:s3cret@[::1/db")
    assert "s3cret" not in str(refused.value)
