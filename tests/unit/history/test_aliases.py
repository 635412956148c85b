"""Other names: the same for the same, nothing of the name left, and what judging needs stays."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from reaper.history.aliases import Aliases, Anonymous
from reaper.policy.session import Identity

SECRET = b"s" * 32
WHOLE = Aliases(SECRET, Anonymous.NAMES)
WORDS = Aliases(SECRET, Anonymous.WORDS)
ANOTHER = Aliases(b"t" * 32, Anonymous.NAMES)


def who(application: str | None, client: str | None = "10.2.3.4") -> Identity:
    return Identity("shop", "app_web", application, client)


def test_the_same_name_gets_the_same_alias_and_by_another_secret_another() -> None:
    assert WHOLE.identity(who("checkout")) == Aliases(SECRET, Anonymous.NAMES).identity(who("checkout"))
    assert WHOLE.identity(who("checkout")) != ANOTHER.identity(who("checkout"))
    assert WHOLE.identity(who("checkout")) != WHOLE.identity(who("checkout2"))
    assert WHOLE.server("orders") == WHOLE.server("orders") != WHOLE.server("order")


def test_nothing_of_a_name_is_left() -> None:
    told = "|".join(str(each) for each in WHOLE.identity(who("checkout-eu-17", "10.2.3.4")))
    assert not {word for word in ("checkout", "eu", "17", "shop", "app", "web", "10.2.3.4") if word in told}


def test_by_words_a_glob_and_a_network_still_tell_them() -> None:
    first, second = (WORDS.identity(who(f"web-{n}", f"10.2.3.{n}")) for n in (7, 8))
    other = WORDS.identity(who("batch-7", "10.9.3.7"))
    assert first.application is not None
    assert second.application is not None
    prefix = first.application.removesuffix("-7")
    assert second.application == f"{prefix}-8"
    assert prefix != "web"
    assert other.application != first.application
    network = ip_network(f"{first.client}/24", strict=False)
    assert ip_address(str(second.client)) in network
    assert ip_address(str(other.client)) not in network
    assert not str(first.client).startswith("10.2.3.")


def test_what_is_not_known_stays_so() -> None:
    assert WHOLE.identity(Identity(None, None, None, None)) == Identity(None, None, None, None)
    assert WORDS.identity(Identity("", None, "", None)) == Identity("", None, "", None)


def test_names_by_which_a_protection_goes_stay() -> None:
    for name in ("pg_dump", "PgBouncer 1.2", "pg-reaper"):
        assert WHOLE.identity(who(name)).application == WORDS.identity(who(name)).application == name
    assert WHOLE.role("rdsadmin") == "rdsadmin"


@given(
    octets=st.lists(st.integers(0, 255), min_size=4, max_size=4),
    other=st.lists(st.integers(0, 255), min_size=4, max_size=4),
)
def test_two_addresses_never_become_one(octets: list[int], other: list[int]) -> None:
    first, second = (".".join(map(str, each)) for each in (octets, other))
    aliases = [WORDS.identity(who("a", client)).client for client in (first, second)]
    assert (aliases[0] == aliases[1]) is (first == second)


@given(client=st.text(max_size=8) | st.just("::1") | st.just("fe80::1%eth0"), name=st.text(max_size=8))
def test_whatever_a_client_is_called_it_has_an_alias(client: str, name: str) -> None:
    for aliases in (WHOLE, WORDS):
        assert isinstance(aliases.identity(who(name, client)), Identity)
