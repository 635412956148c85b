"""Advice for every server: none for a healthy one, quoted and harmless names for a hostile one."""

import json
import re
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.cli.advise_view import as_document
from reaper.insight.advice import advise, not_observed
from reaper.insight.advice.collector import EvidenceCollector
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Urgency, identifier, literal
from reaper.insight.advice.server_facts import (
    PreparedTransaction,
    ReplicationSlot,
    RoleFacts,
    RoleSetting,
    ServerFacts,
)
from reaper.policy.session import Session, Slots, Snapshot
from reaper.policy.time import Timestamp, parse_duration
from tests.unit.policy.build import NOW, WATCHER, session
from tests.unit.policy.hostile import NAMES, PROPERTY, facts, names, sessions

from .scenes import busy, evidence, ground, leak, look, pool, role, used

_QUOTED: Final = re.compile(r""""(?:[^"]|"")*"|E?'(?:[^']|'')*'""")

_HOSTILE: Final = ("two\nlines", 'a"; DROP ROLE b; --', "it's", "[x]*?", "\x1b[2J", "", "app_web")
hostile_names: Final = st.sampled_from(_HOSTILE) | names
grounds: Final = st.builds(
    lambda major, name, limit, text, number: ServerFacts(
        at=NOW,
        major=major,
        settings={**ground(major=major).settings, "tcp_keepalives_idle": text, "reserved_connections": text},
        roles={each: RoleFacts(name=each, limit=limit) for each in (name or "", *_HOSTILE)},
        given=(RoleSetting(role=name, database=None, name="idle_session_timeout", value=text),),
        prepared=(PreparedTransaction(gid=text, database=text, owner=text, at=Timestamp(0), xid_age=number),),
        idle_slots=(ReplicationSlot(name=text, kind="logical", xid_age=number, retained=number),),
        opened=number,
    ),
    st.integers(min_value=13, max_value=18),
    hostile_names,
    st.integers(min_value=-1, max_value=50),
    st.sampled_from(["0", "7200", "x", "", "two\nlines", "-1"]),
    st.none() | st.integers(min_value=0, max_value=10**12),
)


@st.composite
def crowds(draw: st.DrawFn) -> list[Session]:
    """Sessions of every kind, and applications of hostile names that leak or keep a large pool."""
    seen = draw(st.lists(sessions, max_size=6, unique_by=lambda one: one.id))
    for number, kind in enumerate((leak, pool)):
        count = draw(st.sampled_from([0, 1, 8, 40]))
        seen += kind(
            count,
            first=1_000 * (number + 1),
            role=draw(hostile_names),
            application=draw(hostile_names),
            database=draw(names),
        )
    return seen


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    """Up to three snapshots, between which everything can change."""
    collector = EvidenceCollector(
        idle_limit=draw(st.sampled_from([parse_duration("10m"), parse_duration("1s")]))
    )
    for number in range(draw(st.integers(min_value=1, max_value=3))):
        seen = tuple(draw(crowds()))
        collector.add(
            Snapshot(
                server="orders",
                at=Timestamp(NOW + number * 1_000_000),
                slots=Slots(total=103, reserved=3, used=draw(st.integers(min_value=0, max_value=103))),
                watcher=replace(WATCHER, role=draw(names) or ""),
                sessions=seen,
                unreadable=draw(st.integers(min_value=0, max_value=2)),
                facts=draw(facts),
            )
        )
    return collector.evidence(facts=draw(st.none() | grounds), before=draw(st.none() | grounds))


@PROPERTY
@given(evidences())
def test_advice_is_given_whatever_was_seen(seen: Evidence) -> None:
    said = advise(seen)

    ranks = [list(Urgency).index(found.urgency) for found in said]
    assert ranks == sorted(ranks)
    assert all(found.title and found.evidence for found in said)
    json.dumps(as_document(said, seen, tuple(not_observed(seen))))


@PROPERTY
@given(evidences())
def test_every_statement_is_printable_and_its_quotes_are_closed(seen: Evidence) -> None:
    statements = [fix.sql for found in advise(seen) for fix in found.fixes if fix.sql]

    for line in (line for statement in statements for line in statement.split("\n")):
        assert line.isprintable()
        assert not set(_QUOTED.sub("", line)) & {'"', "'"}


@PROPERTY
@given(evidences())
def test_no_sentence_holds_anything_that_moves_a_terminal(seen: Evidence) -> None:
    for found in advise(seen):
        reported = [found.title, *found.evidence]
        reported += [line for fix in found.fixes for line in (fix.action, fix.cost, *fix.setting.split("\n"))]
        assert all(line.isprintable() for line in reported)


_texts: Final = (
    st.sampled_from(NAMES) | st.text(max_size=20) | st.text("\"'\\U&\n\x1b;-- é\u202e", max_size=12)
)


@given(_texts)
def test_a_quoted_name_or_text_is_read_back_unchanged_and_is_printable(text: str) -> None:
    name, string = identifier(text), literal(text)

    if name is not None:
        assert (name[0], name[-1], name.isprintable()) == ('"', '"', True)
        assert '"' not in name[1:-1].replace('""', "")
        assert name[1:-1].replace('""', '"') == text
    if string is not None:
        inner = string.removeprefix("E")[1:-1]
        assert "'" not in inner.replace("''", "")
        # Without E the meaning of a backslash would depend on a setting of the server.
        assert string.startswith("E'" if "\\" in text else "'")
        assert inner.replace("''", "'").replace("\\\\", "\\") == text
        assert string.isprintable()


@pytest.mark.parametrize("name", [None, "", "a\0b", "\ud800", "two\nlines", "x" * 64, "é" * 32])
def test_a_name_that_is_not_printable_or_too_long_gets_no_statement(name: str | None) -> None:
    assert identifier(name) is None


@pytest.mark.parametrize("name", ["x" * 63, "é" * 31, "select", 'a"b', "back\\slash"])
def test_every_printable_name_that_a_server_can_have_is_quoted(name: str) -> None:
    assert identifier(name) is not None


def test_a_healthy_server_gets_no_advice() -> None:
    tools = [
        session(7, application="postgres_exporter", role="monitor", idle="5s"),
        session(8, application="psql", role="alice", idle="3m"),
        session(9, application="pgbouncer", role="app_x", idle="1s"),
    ]
    looks = [look([*used(busy(20), after=after), *tools], after=after) for after in ("0s", "5s", "10s")]
    facts = ground(role(), opened=1_002, after="10s")
    seen = evidence(*looks, before=ground(role(), opened=1_000), ground=facts)

    assert (advise(seen), list(not_observed(seen))) == ((), [])
    assert advise(evidence(look([]), look([], after="1s"), ground=ground())) == ()


def test_the_report_names_what_was_not_observed() -> None:
    one = " ".join(not_observed(evidence(look(leak(3)))))
    facts = replace(ground(), standby=True)
    standby = " ".join(not_observed(evidence(look([]), look([], after="1s"), ground=facts)))

    assert "one snapshot" in one
    assert "settings, role limits, replication slots" in one
    assert "run ALTER ROLE on the primary" in standby
