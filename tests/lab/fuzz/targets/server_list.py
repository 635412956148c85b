"""A file of `servers_from` is servers, or sentences with their places."""

from typing import Final

from reaper.config import BadPolicyFile
from reaper.config.validation import validate_servers
from reaper.config.yaml_tree import parse
from tests.lab.fuzz.promises import is_sentence

SEEDS: Final = (
    b"- {name: a, dsn: host=db, labels: {env: prod}}\n- name: b\n  dsn: postgresql://reaper@db:5432/postgres\n",
    b"[]\n",
    b'- {name: a, dsn: "host=db password=x"}\n- {name: a}\n- 1\n',
    b'[{"name": "c", "dsn": "service=orders", "labels": {"a": "b", "c": 1}}]',
)
WORDS: Final = tuple(b"name dsn labels host=db env prod servers".split())


def check(data: bytes) -> None:
    try:
        document = parse(data, "x\n\x1b", if_empty="write []", below="servers")
    except BadPolicyFile as bad:
        mistakes = list(bad.mistakes)
        assert mistakes
    else:
        servers, issues = validate_servers(document)
        mistakes = document.mistakes([*document.issues, *issues])
        for server in servers.values():
            assert server.build().name.isprintable()
    for mistake in mistakes:
        is_sentence(str(mistake))
