"""The figures of the status page."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reaper.insight.usage.census import census
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION, Slots, Snapshot
from reaper.telemetry.http.page import bars, curve, slot_grid
from tests.unit.policy.build import session, snapshot
from tests.unit.policy.hostile import PROPERTY, snapshots


def counted(look: Snapshot, **slots: int) -> Snapshot:
    held = {"total": 100, "reserved": 5, "used": len(look.sessions), **slots}
    return replace(look, slots=Slots(**held))


def test_every_slot_is_a_square_those_in_use_first_and_those_kept_back_last() -> None:
    look = snapshot(
        session(1, state=IDLE),
        session(2, state=ABORTED),
        session(3, state=ACTIVE),
        session(4, state=IN_TRANSACTION),
        session(5, state=None),
    )

    drawn = slot_grid(census(counted(look, total=12, reserved=3), top=5))

    in_use = ["active", "open", "aborted", "idle", "other"]
    assert drawn.squares == [*in_use, *["free"] * 4, *["kept"] * 3]
    assert (drawn.slots_per_square, drawn.size) == (1, "few")


def test_very_many_slots_are_few_squares_and_what_is_there_at_all_is_seen() -> None:
    drawn = slot_grid(census(counted(snapshot(session(1)), total=5_000), top=5))

    assert len(drawn.squares) <= 402
    assert drawn.slots_per_square == 13
    assert {"idle", "free", "kept"} == set(drawn.squares)
    assert sum(part.amount for part in drawn.parts) == 5_000


@given(snapshots, st.integers(min_value=0, max_value=300_000))
@PROPERTY
def test_a_board_is_never_large(look: Snapshot, total: int) -> None:
    drawn = slot_grid(census(replace(look, slots=Slots(total=total, reserved=3, used=7)), top=5))

    assert len(drawn.squares) < 420


def test_a_bar_is_as_long_as_its_group_beside_the_largest() -> None:
    drawn = bars({"idle": 3, "active": 1}, 8)

    assert [(bar.style, bar.start, bar.width) for bar in drawn] == [
        ("active", "0.00", "12.50"),
        ("idle", "12.50", "37.50"),
    ]


def test_minutes_are_a_line_with_gaps_where_nobody_looked() -> None:
    drawn = curve((None, 0, 10, None, 5), top=10, width=4, height=24)

    assert drawn.line == "M1.0 23.0L2.0 1.0 M3.0 12.0L4.0 12.0"
    assert drawn.area == "M1.0 24L1.0 23.0L2.0 1.0L2.0 24Z M3.0 24L3.0 12.0L4.0 12.0L4.0 24Z"


def test_where_nobody_looked_at_all_there_is_nothing() -> None:
    assert curve((None, None), top=10) == ("", "")
