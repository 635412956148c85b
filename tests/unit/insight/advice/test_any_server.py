"""Whatever a server and its clients come up with: advice is given, and its names are quoted and harmless."""

import json
import re
from dataclasses import replace
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from reaper.cli.advise_view import as_document
from reaper.insight.advice import advise, not_observed
from reaper.insight.advice.collector import EvidenceCollector
from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Urgency
from reaper.insight.advice.server_facts import (
    PreparedTransaction,
    ReplicationSlot,
    RoleFacts,
    RoleSetting,
    ServerFacts,
)
from reaper.policy.session import Session, Slots, Snapshot
from reaper.policy.time import Instant, parse_span
from tests.unit.policy.build import NOW, WATCHER
from tests.unit.policy.hostile import PROPERTY, facts, names, sessions

from .scenes import ground, leak, pool

_QUOTED: Final = re.compile(r"""(?:U&)?"(?:[^"]|"")*"|(?:U&)?'(?:[^']|'')*'""")

_HOSTILE: Final = ("two\nlines", 'a"; DROP ROLE b; --', "it's", "[x]*?", "\x1b[2J", "", "app_web")
hostile_names: Final = st.sampled_from(_HOSTILE) | names
grounds: Final = st.builds(
    lambda major, name, limit, text, number: ServerFacts(
        at=NOW,
        major=major,
        settings={**ground(major=major).settings, "tcp_keepalives_idle": text, "reserved_connections": text},
        roles={each: RoleFacts(name=each, limit=limit) for each in (name or "", *_HOSTILE)},
        given=(RoleSetting(role=name, database=None, name="idle_session_timeout", value=text),),
        prepared=(PreparedTransaction(gid=text, database=text, owner=text, at=Instant(0), xid_age=number),),
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
    collector = EvidenceCollector(idle_limit=draw(st.sampled_from([parse_span("10m"), parse_span("1s")])))
    for number in range(draw(st.integers(min_value=1, max_value=3))):
        seen = tuple(draw(crowds()))
        collector.add(
            Snapshot(
                server="orders",
                at=Instant(NOW + number * 1_000_000),
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
