"""Values and names: each is read, or refused in one sentence; no literal of a query is shown."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from reaper.config import patterns, values
from reaper.config.errors import BadPolicyFile, BadValue
from reaper.config.yaml_tree import parse
from reaper.policy.rules import Window
from reaper.policy.selector import From, Glob
from reaper.policy.time import Instant, exact_words, parse_span, parse_time, words
from reaper.postgres.query_text import strip_literals
from reaper.service.fleet import Shard

from .inputs import Feed, Target, is_line, is_sentence

_READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "duration": values.duration("1ms", "3650d"),
    "share": values.share,
    "whole": values.whole(0),
    "truth": values.truth,
    "choice": values.choice(("terminate", "cancel")),
    "protection": values.protection,
    "name": values.name("[a-z0-9][a-z0-9-]{0,62}", "write letters"),
    "role": patterns.name_glob,
    "application": patterns.application_glob,
    "client": patterns.network,
    "files": patterns.files,
    "during": values.window,
    "dsn": patterns.dsn,
    "url": patterns.url,
    "file": patterns.url_file,
    "variable": patterns.url_variable,
    "version": values.version,
}
_NAMES: Final = tuple(_READERS)
_EXAMPLES: Final[Mapping[str, str]] = {
    "duration": "1d2h3m4s5ms",
    "share": "80.5%",
    "whole": "0x1f",
    "role": "a[!b-c]*?",
    "client": "10.2.0.0/16",
    "files": "servers.d/[a-b]*.yaml",
    "during": "Mon-Fri,Sun 20:00-06:00 Europe/Berlin",
    "dsn": "postgresql://reaper@[::1]:5432,b/postgres?connect_timeout=3",
    "url": "https://chat.example.com:443/hooks/x?y=z",
}
_MOMENTS: Final = (Instant(0), Instant(1_750_248_000_000_000), Instant(-(2**63)), Instant(2**63))
_SINGLE_VALUES: Final = (
    *(
        bytes([_NAMES.index(name), quoted]) + text.encode()
        for name, text in _EXAMPLES.items()
        for quoted in (0, 1)
    ),
    bytes([len(_NAMES), 0]) + b"2026-01-31T23:59:59.123456+01:00",
    bytes([len(_NAMES), 0]) + b"reaper-2/8",
)
_SINGLE_VALUES_WORDS: Final = tuple(
    b"1d 2h ms 80 % Mon -Fri ,Sun 20:00-06:00 Europe/Berlin UTC 10.2.0.0 /16 ::ffff: fe80::1 %eth0 local [ !"
    b" * ? servers.d/ .yaml host= postgresql:// password @ https:// 2026-01-31T23:59Z reaper- /8".split()
)


def _check_single_values(data: bytes) -> None:
    feed = Feed(data)
    which, quoted = feed.number() % (len(_NAMES) + 1), feed.number() % 2
    text = feed.rest().decode("utf-8", "replace").replace("\0", "?")
    if which == len(_NAMES):
        _of_the_command_line(text)
        return
    name = _NAMES[which]
    try:
        value = _READERS[name](text if quoted else _plain(text))
    except (BadPolicyFile, BadValue) as refused:
        is_sentence(str(refused))
    else:
        _use_value(value, text)


def _plain(text: str) -> object:
    """The text as in a policy file without quotes."""
    return parse(text.encode(), "x").data


def _use_value(value: object, text: str) -> None:
    match value:
        case Glob():
            for name in ("", "app", text, "a" * 63, "\n"):
                value.matches(name)
            assert patterns.is_literal(text) <= value.matches(text)
        case From():
            for client in (None, "10.2.0.7", "::1", "::ffff:10.2.0.7", "fe80::1%eth0", text):
                value.matches(client)
            assert str(value)
        case Window():
            for moment in _MOMENTS:
                value.holds(moment)


def _of_the_command_line(text: str) -> None:
    if time := parse_time(text):
        assert time.tzinfo
    try:
        span = parse_span(text)
    except ValueError:
        pass
    else:
        assert parse_span(exact_words(span)) == span // 1_000 * 1_000
        is_line(words(span))
    try:
        shard = Shard.parse(text)
    except ValueError:
        pass  # repeated by the command line, which escapes it
    else:
        assert Shard.parse(str(shard)) == shard


_QUERY_TEXT: Final = (
    b"SELECT 'secret', E'a\\'b', $tag$ x $tag$, 1.5e3 -- comment\n FROM \"a\"\"b\" WHERE x = $1",
    b"/* a /* b */ c */ SELECT U&'\\0041' UESCAPE '!', B'01', X'1f', .5, a$b$c",
    b"$$ never closed",
    b"'never closed \\",
    b'"never closed',
)
_QUERY_TEXT_WORDS: Final = (
    *rb"""' '' E' U&' $$ $a$ $1 /* */ -- " \' \ 1.5e3 .5 SELECT a$b x'1f' ::int""".split(),
    "é".encode(),
    b"\n",
)
_LONGEST: Final = 20_000


def _check_query_text(data: bytes) -> None:
    query = data[:_LONGEST].decode("utf-8", "backslashreplace")
    shown = strip_literals(query)
    assert len(shown) <= len(query) + len("?...")
    # What is left besides names in quotes: a quote or a number would be part of a literal.
    bare = re.sub(r'"(?:[^"]|"")*(?:"|\Z)', "", shown)
    assert "'" not in bare
    assert not re.search(r"(?<![\w$\x80-\U0010ffff])[0-9]", bare)


TARGETS: Final = (
    Target("single_values", _check_single_values, _SINGLE_VALUES, _SINGLE_VALUES_WORDS),
    Target("query_text", _check_query_text, _QUERY_TEXT, _QUERY_TEXT_WORDS),
)
