"""A saved snapshot gives back the same snapshot, or says what is wrong with it."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.history.snapshot import BadSnapshot, dump_snapshot, parse_snapshot
from reaper.policy.session import Facts, Identity, Session, Slots, Snapshot, Watcher
from tests.unit.audit.build import SNAPSHOT

from .histories import counts, instants, sessions, texts

with_query = st.builds(lambda one, query: replace(one, query=query), sessions, st.none() | texts)
any_snapshot = st.builds(
    Snapshot,
    server=texts,
    at=instants,
    slots=st.builds(Slots, total=counts, reserved=counts, used=counts, superuser_reserved=st.none() | counts),
    watcher=st.builds(Watcher, pid=counts, role=texts, superuser=st.booleans()),
    sessions=st.lists(with_query, max_size=3, unique_by=lambda session: session.id).map(tuple),
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


def test_each_session_stands_on_a_line_of_its_own() -> None:
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


def test_a_field_that_is_left_out_is_not_known() -> None:
    document = json.loads(dump_snapshot(SNAPSHOT))
    document["sessions"] = [{"pid": 7, "backend_start": "2025-06-18T11:00:00+00:00"}]
    del document["facts"], document["unreadable"]
    (session,) = parse_snapshot(json.dumps(document).encode(), file="s.json").sessions
    assert session == Session(id=session.id, identity=Identity(None, None, None, None))


def changed(**changes: Any) -> bytes:  # noqa: ANN401
    return json.dumps({**json.loads(dump_snapshot(SNAPSHOT)), **changes}).encode()


def one(**session: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return [{"pid": 7, "backend_start": "2025-06-18T11:00:00Z", **session}]


WRITE = "; write it as `reaper snapshot` does"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", ":1:1: not JSON: Expecting value"),
        (b'{\n "snapshot" 1\n}', ":2:13: not JSON: Expecting ':' delimiter"),
        (b'"\xff"', ": not UTF-8 at byte 1; give a file that `reaper snapshot` wrote"),
        (b"[" * 100_000, ": nested too deeply; a snapshot has three levels"),
        (
            changed(unreadable=7).replace(b": 7", b": 7" + b"0" * 5_000),
            ": unreadable: Input should be less than",
        ),
        (b'{"\\ud800": 1}', ": Input should be a valid string, unable to parse"),
        (b"[]", ": Input should be an object (it is a list)" + WRITE),
        (changed(snapshot=2), ": snapshot: Input should be 1 (it is 2)"),
        (changed(at="noon"), ": at: not a time like 2026-01-31T23:59:59.000000Z (it is 'noon')"),
        (changed(colour="red"), ": colour: Extra inputs are not permitted (it is 'red')"),
        (changed(**{"\u202ex": 1}), ": '\\u202ex': Extra inputs are not permitted"),
        (changed(sessions={}), ": sessions: Input should be a valid list (it is an object)"),
        (changed(sessions=[{}]), ": sessions[0].pid: Field required (it is an object)"),
        (changed(sessions=one(pid="7")), ": sessions[0].pid: Input should be a valid integer (it is '7')"),
        (changed(sessions=one(pid=2**31)), ": sessions[0].pid: Input should be less than 2147483648"),
        (changed(sessions=one(role=1)), ": sessions[0].role: Input should be an instance of str (it is 1)"),
        (
            changed(sessions=one() + one()),
            ": sessions[1]: the same pid and backend_start as another; remove one",
        ),
        (changed(facts={"waiters": {"01": 1}}), ": facts.waiters.'01': String should match pattern"),
        (changed(**{f"k{number}": 1 for number in range(101)}), ": more than 100 entries (it is an object)"),
        (changed(sessions=[1] * 262_144), ": sessions: more than 262143 entries (it is a list)"),
        (changed(sessions=[1] * 262_143), ": sessions[0]: Input should be an object"),
        (
            changed(facts={"advisory_lock_holders": ["x"] * 262_144}),
            ": facts.advisory_lock_holders: more than",
        ),
        (changed(facts={"waiters": {str(pid): "x" for pid in range(262_144)}}), ": facts.waiters: more than"),
    ],
)
def test_each_problem_is_one_short_line_with_its_place(data: bytes, problem: str) -> None:
    with pytest.raises(BadSnapshot, match=re.escape(f"{problem}")) as bad:
        parse_snapshot(data, file="s.json")
    assert all(each.isprintable() and each.startswith("s.json") for each in bad.value.problems)
    assert all(len(each) < 200 for each in bad.value.problems)
    assert len(bad.value.problems) <= 21


def test_all_problems_are_reported_at_once_up_to_a_limit() -> None:
    with pytest.raises(BadSnapshot) as bad:
        parse_snapshot(changed(sessions=[{}] * 1_000, at="x" * 10_000), file="s.json")
    assert bad.value.problems[0].startswith("s.json: at: ")
    assert len(bad.value.problems) == 21
    assert bad.value.problems[-1] == "s.json: more problems of this kind"


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse_snapshot(b"\xef\xbb\xbf" + dump_snapshot(SNAPSHOT), file="s.json") == SNAPSHOT


def test_a_file_that_is_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reaper.history.snapshot.MAX_BYTES", 10)
    with pytest.raises(BadSnapshot, match="it has more than 10 bytes"):
        parse_snapshot(b"not JSON !!", file="s.json")


@given(
    data=st.binary()
    | st.recursive(
        st.none() | st.integers() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_other_file_is_refused(data: bytes) -> None:
    with pytest.raises(BadSnapshot):
        parse_snapshot(data, file="s.json")
