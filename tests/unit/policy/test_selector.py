"""Who is meant: globs on names, networks on addresses, and what a list of them says."""

from dataclasses import fields
from fnmatch import fnmatchcase
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.selector import NO_KEYS, From, Glob, Selector
from reaper.policy.session import Identity

from .build import globs

WEB = Identity("shop", "app_web", "web-1", "10.2.0.7")
NOTHING_KNOWN = Identity(None, None, None, None)
BOMBS = ("*a" * 60 + "b", "a*" * 60 + "b", "*?" * 60 + "b", "*[ab]" * 60 + "c", "*" * 500 + "b")


def network(text: str) -> From:
    return From(None if text == "local" else ip_network(text))


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("metabase", "metabase"),
        ("", ""),
        ("*", ""),
        ("*", "anything"),
        ("*", "two\nlines"),
        ("web-*", "web-"),
        ("web-*", "web-1\nweb-2"),
        ("*-web", "x\n-web"),
        ("*a*b*", "__a__b__"),
        ("web-?", "web-1"),
        ("web-?", "web-\n"),
        ("?", "🐘"),
        ("[abc]x", "bx"),
        ("[a-c]x", "bx"),
        ("[!a-c]x", "dx"),
        ("[!a]", "\n"),
        ("[]]", "]"),
        ("[!]]", "x"),
        ("[*]", "*"),
        ("[?]", "?"),
        ("[[]x", "[x"),
        ("[-a]", "-"),
        ("[^a]", "^"),
        ("[", "["),
        ("a[b", "a[b"),
        ("a.b", "a.b"),
        ("a+(b|c)$", "a+(b|c)$"),
        (r"\d", r"\d"),
        ("(?i)web", "(?i)web"),
        ("ß", "ß"),
        ("\x00*", "\x00\x1b[2J"),
        ("*\u202e", "name\u202e"),
    ],
)
def test_a_glob_fits_the_whole_raw_value(pattern: str, value: str) -> None:
    assert Glob(pattern).matches(value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("metabase", "metabase2"),
        ("metabase", "my metabase"),
        ("metabase", "Metabase"),
        ("METABASE", "metabase"),
        ("metabase", "metabase\n"),
        ("metabase", "x\nmetabase"),
        ("metabase", " metabase"),
        ("", " "),
        ("?", ""),
        ("?", "ab"),
        ("web-?", "web-10"),
        ("[abc]x", "dx"),
        ("[!a-c]x", "bx"),
        ("[!a]", ""),
        ("[z-a]", "m"),
        ("[A-Z]", "q"),
        ("[^a]", "b"),
        ("a.b", "axb"),
        (".*", "web"),
        ("^web$", "web"),
        ("a|b", "a"),
        (r"\d", "1"),
        ("(?i)web", "web"),
        ("ß", "SS"),
        ("é", "e\u0301"),
    ],
)
def test_a_glob_fits_nothing_but_the_whole_raw_value_in_its_own_case(pattern: str, value: str) -> None:
    assert not Glob(pattern).matches(value)


@pytest.mark.parametrize("pattern", ["*", "", "?", "[!a]", "None", "null"])
def test_no_glob_fits_a_value_that_is_not_known(pattern: str) -> None:
    assert not Glob(pattern).matches(None)


@pytest.mark.parametrize("pattern", BOMBS)
def test_no_pattern_is_slow_on_any_name(pattern: str) -> None:
    # A pattern that tried every way to share out the letters would not be done before the sun is.
    assert not Glob(pattern).matches("a" * 63)
    assert Glob(pattern).matches("a" * 63 + pattern[-1]) is fnmatchcase("a" * 63 + pattern[-1], pattern)


@given(st.text("ab*?[]!-^\\\n", max_size=12), st.text("ab*?[]!-^\\\n", max_size=12))
def test_a_glob_means_what_the_shell_means(pattern: str, value: str) -> None:
    assert Glob(pattern).matches(value) is fnmatchcase(value, pattern)


@given(st.text(max_size=20), st.text(max_size=20))
def test_every_text_is_a_pattern_and_every_pattern_answers_every_value(pattern: str, value: str) -> None:
    assert Glob(pattern).matches(value) in (True, False)


@given(st.text(max_size=20).filter(lambda text: not set(text) & set("*?[")))
def test_a_glob_without_wildcards_fits_itself_alone(text: str) -> None:
    assert Glob(text).matches(text)
    assert not Glob(text).matches(text + "x")


@pytest.mark.parametrize(
    ("matching", "client"),
    [
        ("10.2.0.0/16", "10.2.0.0"),
        ("10.2.0.0/16", "10.2.255.255"),
        ("10.2.0.7/32", "10.2.0.7"),
        ("0.0.0.0/0", "255.255.255.255"),
        ("fd00::/8", "fd12::1"),
        ("::1/128", "::1"),
        ("::1/128", "0:0:0:0:0:0:0:1"),
        ("10.2.0.0/16", "::ffff:10.2.0.7"),
        ("::ffff:10.2.0.0/112", "::ffff:10.2.0.7"),
        ("::/0", "::ffff:10.2.0.7"),
        ("fe80::/10", "fe80::1%eth0"),
    ],
)
def test_a_network_means_the_addresses_inside_it(matching: str, client: str) -> None:
    assert network(matching).matches(client)


@pytest.mark.parametrize(
    ("matching", "client"),
    [
        ("10.2.0.0/16", "10.3.0.0"),
        ("10.2.0.0/16", "10.1.255.255"),
        ("0.0.0.0/0", "::1"),
        ("::/0", "10.2.0.7"),
        ("10.2.0.0/16", "::10.2.0.7"),
        ("::ffff:10.2.0.0/112", "10.2.0.7"),
        *(
            ("0.0.0.0/0", text)
            for text in ("", " ", "10.2", "10.2.0.7/32", "10.2.0.7 ", "010.2.0.7", "local")
        ),
        *(("::/0", text) for text in ("", "::g", "localhost", "None", "[::1]")),
    ],
)
def test_a_network_means_no_other_address_and_no_text_that_is_none(matching: str, client: str) -> None:
    assert not network(matching).matches(client)


def test_the_own_socket_is_the_client_without_an_address() -> None:
    assert network("local").matches(None)


@pytest.mark.parametrize("client", ["", "local", "127.0.0.1", "::1"])
def test_no_address_is_the_own_socket(client: str) -> None:
    assert not network("local").matches(client)


@pytest.mark.parametrize("matching", ["0.0.0.0/0", "::/0", "10.0.0.0/8"])
def test_a_client_without_an_address_is_in_no_network(matching: str) -> None:
    assert not network(matching).matches(None)


@pytest.mark.parametrize("matching", ["10.2.0.0/16", "fd00::/8", "local"])
def test_a_network_is_shown_as_it_was_written(matching: str) -> None:
    assert str(network(matching)) == matching


def test_the_keys_of_a_selector_are_those_of_an_identity() -> None:
    assert {field.name for field in fields(Selector)} == set(Identity._fields)


EVERY_KEY = Selector(
    role=globs("app_*"), database=globs("shop"), application=globs("web-*"), client=(network("10.2.0.0/16"),)
)


@pytest.mark.parametrize(
    ("seen", "selected"),
    [
        (WEB, True),
        (WEB._replace(role="reporting"), False),
        (WEB._replace(database="stock"), False),
        (WEB._replace(application="metabase"), False),
        (WEB._replace(client="10.3.0.1"), False),
        (WEB._replace(role=None), False),
        (WEB._replace(database=None), False),
        (WEB._replace(application=None), False),
        (WEB._replace(client=None), False),
        (NOTHING_KNOWN, False),
    ],
)
def test_a_match_needs_every_key_that_was_given(seen: Identity, *, selected: bool) -> None:
    assert EVERY_KEY.selects(seen) is selected


@pytest.mark.parametrize(
    ("seen", "selected"),
    [(WEB, True), (WEB._replace(role="reporting"), True), (WEB._replace(role="owner"), False)],
)
def test_one_value_of_a_key_is_enough(seen: Identity, *, selected: bool) -> None:
    assert Selector(role=globs("app_*", "reporting")).selects(seen) is selected


@pytest.mark.parametrize("seen", [WEB, NOTHING_KNOWN])
def test_a_selector_without_keys_limits_no_match_and_hits_nobody(seen: Identity) -> None:
    assert NO_KEYS.selects(seen)
    assert NO_KEYS.first_hit(seen) is None


@pytest.mark.parametrize(
    ("hits", "said"),
    [
        (Selector(application=globs("web-1")), "application 'web-1'"),
        (Selector(application=globs("metabase", "web-*")), "application 'web-1' as 'web-*'"),
        (Selector(role=globs("nobody"), database=globs("shop")), "database 'shop'"),
        (Selector(client=(network("10.2.0.0/16"),)), "client '10.2.0.7' as '10.2.0.0/16'"),
        (EVERY_KEY, "role 'app_web' as 'app_*'"),
    ],
)
def test_any_key_is_a_hit_and_is_told_with_the_value_and_the_pattern(hits: Selector, said: str) -> None:
    assert str(hits.first_hit(WEB)) == said


def test_a_hit_on_the_own_socket_says_local() -> None:
    assert str(Selector(client=(network("local"),)).first_hit(WEB._replace(client=None))) == "client 'local'"


def test_a_hit_shows_a_hostile_name_on_one_line() -> None:
    hostile = WEB._replace(application="x\n\x1b[2J\u202e{")
    assert str(Selector(application=globs("x*")).first_hit(hostile)) == (
        r"application 'x\n\x1b[2J\u202e{' as 'x*'"
    )


@pytest.mark.parametrize(
    "hits",
    [
        Selector(role=globs("*", "")),
        Selector(database=globs("*", "")),
        Selector(application=globs("*", "")),
        Selector(client=(network("0.0.0.0/0"), network("::/0"))),
    ],
)
def test_a_value_that_is_not_known_hits_nothing(hits: Selector) -> None:
    assert hits.first_hit(NOTHING_KNOWN) is None
