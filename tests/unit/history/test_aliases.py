"""Aliases: the same name gets the same alias, no word of it is left, and globs and protections still fit."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from reaper.history.aliases import Aliases
from reaper.policy.session import Identity

SECRET = b"s" * 32
ALIASES = Aliases(SECRET)


def alias(application: str | None, client: str | None = "10.2.3.4", aliases: Aliases = ALIASES) -> Identity:
    return aliases.identity(Identity("shop", "app_web", application, client))


def test_the_same_name_gets_the_same_alias_and_with_another_secret_another() -> None:
    assert alias("checkout") == alias("checkout", aliases=Aliases(SECRET))
    assert alias("checkout") != alias("checkout", aliases=Aliases(b"t" * 32))
    assert alias("checkout") != alias("checkouts")
    assert ALIASES.server("orders") == ALIASES.server("orders") != ALIASES.server("order")


def test_no_word_and_no_address_is_left() -> None:
    shown = "|".join(map(str, alias("checkout-eu-17", "10.2.3.4")))
    assert not [word for word in ("checkout", "eu-", "shop", "app", "web", "10.2.") if word in shown]


def test_globs_and_networks_still_fit() -> None:
    first, second = (alias(f"web-{n}", f"10.2.3.{n}") for n in (7, 8))
    other = alias("batch-7", "10.9.3.7")
    prefix = str(first.application).removesuffix("-7")
    assert second.application == f"{prefix}-8"
    assert prefix != "web"
    assert not str(other.application).startswith(prefix)
    network = ip_network(f"{first.client}/24", strict=False)
    assert ip_address(str(second.client)) in network
    assert ip_address(str(other.client)) not in network


def test_missing_names_stay_missing_and_names_of_protections_stay() -> None:
    assert ALIASES.identity(Identity(None, "", None, None)) == Identity(None, "", None, None)
    for name in ("pg_dump", "PgBouncer 1.2", "pg-reaper"):
        assert alias(name).application == name
    assert ALIASES.name("rdsadmin") == "rdsadmin"


octets = st.lists(st.integers(0, 255), min_size=4, max_size=4)


@given(octets=octets, other=octets)
def test_two_addresses_never_get_one_alias(octets: list[int], other: list[int]) -> None:
    first, second = (".".join(map(str, each)) for each in (octets, other))
    assert (alias("a", first).client == alias("a", second).client) is (first == second)


@given(client=st.text(max_size=8) | st.just("::1") | st.just("fe80::1%eth0"), name=st.text(max_size=8))
def test_every_name_and_address_has_an_alias(client: str, name: str) -> None:
    assert isinstance(alias(name, client), Identity)
