"""What the rows of one look after the other tell, of which only news is decoded."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from reaper.postgres.flight import Row
from reaper.postgres.query_text import QueryText
from reaper.postgres.rows import Columns, Decoder, Reader

WORDS: Final = (b"", b"shop", b"app_web", b"caf\xe9", None)
MOMENTS: Final = (
    b"\0\x02\xdb\x7f\xae\x90\x40\0",
    b"\0\x02\xdb\x7f\xae\x90\x40\1",
    b"\x7f" + b"\xff" * 7,
    None,
)
FLAGS: Final = (b"\0", b"\1", None)
NUMBERS: Final = (b"\0\0\0\1", b"\xff\xff\xff\xff", None)

words, moments, flags, numbers = map(st.sampled_from, (WORDS, MOMENTS, FLAGS, NUMBERS))
rows: Final[st.SearchStrategy[Row]] = st.builds(
    Columns,
    pid=st.integers(1, 4).map(lambda pid: bytes([0, 0, 0, pid])),
    backend_start=moments,
    database=words,
    role=words,
    application=words,
    client=words,
    kind=st.sampled_from([b"client backend", b"client backend", b"walsender", None]),
    role_oid=numbers,
    superuser=flags,
    client_port=numbers,
    state=st.sampled_from([b"idle", b"active", None]),
    state_change=moments,
    query_start=moments,
    xact_start=moments,
    wait_event=words,
    xid_age=numbers,
    listens=flags,
    starts_backup=flags,
    query=words,
    at=moments,
    clients=st.none(),
    unreadable=st.none(),
).map(tuple)
looks: Final = st.lists(rows, max_size=4, unique_by=lambda row: row[0])


def reader() -> Reader:
    return Reader(Decoder(encoding="utf-8", query_text=QueryText.FULL))


@st.composite
def histories(draw: st.DrawFn) -> list[list[Row]]:
    """Looks at sessions that come, leave, stay as they were, or change in one thing."""
    history = [draw(looks)]
    for _ in range(draw(st.integers(1, 3))):
        now = {row[0]: row for row in draw(looks)}
        for row in history[-1]:
            column = draw(st.integers(1, len(row) - 1))
            other = now.get(row[0], row)
            now[row[0]] = (*row[:column], other[column], *row[column + 1 :])
        staying = draw(st.sets(st.sampled_from(sorted(now, key=str)))) if now else set[bytes | None]()
        history.append([now[pid] for pid in draw(st.permutations(sorted(staying, key=str)))])
    return history


@given(histories())
def test_what_was_told_before_changes_no_answer(history: list[list[Row]]) -> None:
    remembering = reader()
    for look in history:
        assert remembering.sessions(look) == reader().sessions(look)


@given(looks)
def test_who_has_not_changed_is_not_decoded_again(look: list[Row]) -> None:
    remembering = reader()
    first = remembering.sessions(look)
    again = remembering.sessions([tuple(row) for row in look])
    assert list(map(id, again)) == list(map(id, first))


@given(looks)
def test_nobody_is_remembered_who_was_not_in_the_last_look(look: list[Row]) -> None:
    remembering = reader()
    before = remembering.sessions(look)
    remembering.sessions([])
    after = remembering.sessions(look)
    assert after == before
    assert not set(map(id, after)) & set(map(id, before))
