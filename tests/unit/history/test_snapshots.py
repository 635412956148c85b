"""Saved snapshots give back the same snapshot, or say what is wrong with them."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.history import snapshot as snapshot_file
from reaper.history import snapshot as snapshots
from reaper.history.snapshot import BadSnapshot, dump_snapshot, parse_snapshot
from reaper.policy.session import Facts, Identity, Session, SessionId, Slots, Snapshot, Watcher
from reaper.policy.time import Instant
from tests.unit.audit.build import SNAPSHOT

texts = st.text(alphabet=st.characters(codec=None) | st.sampled_from('\n\x1b\u202e\ud800\x00"\\'))
instants = st.builds(Instant, st.integers(-(2**63), 2**63 - 1))
counts = st.integers(0, 2**31 - 1)
sessions = st.builds(
    Session,
    id=st.builds(SessionId, counts, instants),
    identity=st.builds(Identity, *[st.none() | texts] * 4),
    kind=texts,
    role_oid=st.none() | counts,
    superuser=st.booleans(),
    client_port=st.none() | st.integers(-1, 65_535),
    state=st.none() | texts,
    state_change=st.none() | instants,
    query_start=st.none() | instants,
    xact_start=st.none() | instants,
    wait_event=st.none() | texts,
    xid_age=st.none() | st.integers(-(2**31), 2**31),
    last_query_listens=st.booleans(),
    last_query_starts_backup=st.booleans(),
    query=st.none() | texts,
)
any_snapshot = st.builds(
    Snapshot,
    server=texts,
    at=instants,
    slots=st.builds(Slots, total=counts, reserved=counts, used=counts, superuser_reserved=st.none() | counts),
    watcher=st.builds(Watcher, pid=counts, role=texts, superuser=st.booleans()),
    sessions=st.lists(sessions, max_size=3, unique_by=lambda session: session.id).map(tuple),
    unreadable=counts,
    facts=st.builds(
        Facts,
        advisory_lock_holders=st.none() | st.frozensets(counts),
        waiters=st.none() | st.dictionaries(counts, counts),
        blockers=st.none() | st.dictionaries(counts, st.frozensets(counts)),
    ),
)


@given(snapshot=any_snapshot)
def test_a_snapshot_is_read_back_as_it_was(snapshot: Snapshot) -> None:
    data = dump_snapshot(snapshot)
    assert data.isascii()
    assert parse_snapshot(data, file="s.json") == snapshot


def test_people_can_read_it_a_session_a_line() -> None:
    assert dump_snapshot(SNAPSHOT).decode() == (
        "{\n"
        '  "snapshot": 1,\n'
        '  "server": "orders",\n'
        '  "at": "2025-06-18T12:00:00.000000Z",\n'
        '  "slots": {\n    "total": 100,\n    "reserved": 3,\n    "used": 40,\n'
        '    "superuser_reserved": 3\n  },\n'
        '  "watcher": {\n    "pid": 1,\n    "role": "reaper",\n    "superuser": false\n  },\n'
        '  "unreadable": 0,\n'
        '  "facts": {\n    "advisory_lock_holders": null,\n    "waiters": null,\n    "blockers": null\n  },\n'
        '  "sessions": [\n'
        '    {"pid": 4711, "backend_start": "2025-06-18T11:00:00.000000Z", "database": "shop",'
        ' "role": "app_web", "application": "web-1", "client": "10.2.0.7", "kind": "client backend",'
        ' "role_oid": null, "superuser": false, "client_port": 50000, "state": "idle",'
        ' "state_change": "2025-06-18T11:47:29.000000Z", "query_start": "2025-06-18T11:47:28.000000Z",'
        ' "xact_start": null, "wait_event": null, "xid_age": null, "last_query_listens": false,'
        ' "last_query_starts_backup": false, "query": null}\n'
        "  ]\n"
        "}\n"
    )


def test_what_was_left_out_by_hand_is_what_the_server_did_not_tell() -> None:
    document = json.loads(dump_snapshot(SNAPSHOT))
    document["sessions"] = [{"pid": 7, "backend_start": "2025-06-18T11:00:00+00:00"}]
    del document["facts"], document["unreadable"]
    (session,) = parse_snapshot(json.dumps(document).encode(), file="s.json").sessions
    assert session == Session(id=session.id, identity=Identity(None, None, None, None))


def changed(**changes: Any) -> bytes:  # noqa: ANN401
    return json.dumps({**json.loads(dump_snapshot(SNAPSHOT)), **changes}).encode()


def one(**session: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return [{"pid": 7, "backend_start": "2025-06-18T11:00:00Z", **session}]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "s.json:1:1: not JSON: Expecting value"),
        (b'{\n "snapshot" 1\n}', "s.json:2:13: not JSON: Expecting ':' delimiter"),
        (b'"\xff"', "s.json: not UTF-8 at byte 1; write what `reaper snapshot` wrote"),
        (b"[" * 100_000, "s.json: nested too deeply; a snapshot has three levels"),
        (b'{"a": 1, "a": 2}', "s.json: the key 'a' stands twice in one object; remove one of them"),
        (b'{"a": 123%s}' % (b"0" * 5_000), "has 5003 digits; write a whole number"),
        (b'{"\\ud800": 1}', "s.json: it has a key that is no text; remove it"),
        (b"[]", "s.json: a list is no object; write one in { }"),
        (changed(snapshot=2), "s.json: snapshot: 2 is no version of this format; write 1"),
        (
            changed(at="noon"),
            "s.json: at: 'noon' is no instant; write it like \"2026-01-31T23:59:59.000000Z\"",
        ),
        (changed(at=17), 's.json: at: 17 is no instant; write it like "2026-01-31T23:59:59.000000Z"'),
        (changed(colour="red"), "s.json: colour: a snapshot has no such key; remove it"),
        (
            changed(**{"\u202ex": 1}),
            "s.json: '\\u202ex': a snapshot has no such key; remove it",
        ),
        (changed(sessions={}), "s.json: sessions: an object is no list; write one in [ ]"),
        (changed(sessions=[7]), "s.json: sessions[0]: 7 is no object; write one in { }"),
        (
            changed(sessions=[{}]),
            "s.json: sessions[0].pid: it is missing; write it as `reaper snapshot` does",
        ),
        (changed(sessions=one(pid="7")), "s.json: sessions[0].pid: '7' is no whole number; write one"),
        (changed(sessions=one(pid=True)), "s.json: sessions[0].pid: true is no whole number; write one"),
        (changed(sessions=one(pid=-1)), "s.json: sessions[0].pid: -1 is too small; write 0 or more"),
        (
            changed(sessions=one(pid=2**31)),
            "s.json: sessions[0].pid: 2147483648 is too large; write less than 2147483648",
        ),
        (changed(sessions=one(role=1)), "s.json: sessions[0].role: 1 is no text; write it in quotes"),
        (
            changed(sessions=one(superuser="yes")),
            "s.json: sessions[0].superuser: 'yes' is neither true nor false; write one of them",
        ),
        (
            changed(sessions=one() + one()),
            "s.json: sessions[1]: pid 7 with this backend_start stands here twice; remove one of them",
        ),
        (
            changed(facts={"waiters": {"x": 1}}),
            "s.json: facts.waiters.x: 'x' is no pid; write its digits in quotes",
        ),
        (changed(facts={"waiters": []}), "s.json: facts.waiters: a list is no object; write one in { }"),
    ],
)
def test_each_mistake_is_one_line_that_says_where_and_what_instead(data: bytes, told: str) -> None:
    with pytest.raises(BadSnapshot, match=re.escape(told)) as bad:
        parse_snapshot(data, file="s.json")
    assert all(problem.isprintable() for problem in bad.value.problems)


def test_every_mistake_is_told_at_once_but_not_thousands() -> None:
    with pytest.raises(BadSnapshot) as bad:
        parse_snapshot(changed(sessions=[{}] * 1_000), file="s.json")
    assert len(bad.value.problems) == 21
    assert bad.value.problems[-1] == "s.json: and more of this kind"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (changed(sessions=[1] * 262_144), "s.json: sessions: it holds more than 262143 entries"),
        (changed(sessions=[1] * 262_143), "s.json: sessions[0]: 1 is no object"),
        (changed(facts={"waiters": {str(pid): "x" for pid in range(262_144)}}), "s.json: facts.waiters: it"),
        (
            changed(facts={"advisory_lock_holders": ["x"] * 262_144}),
            "s.json: facts.advisory_lock_holders: it",
        ),
        (changed(**{f"k{number}": 1 for number in range(101)}), "s.json: it holds more than 100 keys"),
        (changed(facts={"waiters": {"01": 1}}), "s.json: facts.waiters.'01': '01' is no pid"),
    ],
)
def test_a_crowd_of_mistakes_is_refused_by_its_number(data: bytes, told: str) -> None:
    with pytest.raises(BadSnapshot) as bad:
        parse_snapshot(data, file="s.json")
    assert bad.value.problems[0].startswith(told)
    assert len(bad.value.problems) <= 21


def test_no_more_of_a_broken_file_is_looked_at_than_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[object]()
    read = snapshot_file._Problems.read

    def seen(problems: Any, model: Any, value: object, place: Any) -> object:  # noqa: ANN401
        looked.append(place)
        return read(problems, model, value, place)

    monkeypatch.setattr(snapshot_file._Problems, "read", seen)
    with pytest.raises(BadSnapshot):
        parse_snapshot(changed(sessions=[{}] * 1_000), file="s.json")
    assert len(looked) == 12


def test_a_mark_of_byte_order_is_no_part_of_it() -> None:
    assert parse_snapshot(b"\xef\xbb\xbf" + dump_snapshot(SNAPSHOT), file="s.json") == SNAPSHOT


def test_a_long_value_is_told_short() -> None:
    with pytest.raises(BadSnapshot) as bad:
        parse_snapshot(changed(at="x" * 10_000), file="s.json")
    assert len(str(bad.value)) < 200


def test_a_file_beyond_measure_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_BYTES", 10)
    with pytest.raises(BadSnapshot, match="it has more than 10 bytes"):
        parse_snapshot(b"not JSON !!", file="s.json")


@given(
    data=st.binary()
    | st.recursive(
        st.none() | st.integers() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_is_read_is_a_snapshot_or_a_sentence(data: bytes) -> None:
    with pytest.raises(BadSnapshot):
        parse_snapshot(data, file="s.json")
