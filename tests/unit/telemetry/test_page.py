"""The status page: harmless whatever names it shows, small, and with figures that are true."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.insight.usage.census import census
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION, Slots, Snapshot
from reaper.policy.text import printable
from reaper.telemetry.http.page import bars, curve, render, slot_grid
from tests.unit.policy.build import session, snapshot
from tests.unit.policy.hostile import PROPERTY, snapshots

from . import sights


class ParsedPage(HTMLParser):
    """The elements and the texts of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("sight", [sights.usual, sights.full, sights.empty, sights.hostile, sights.fleet])
@pytest.mark.parametrize("paused", [True, False])
def test_it_has_no_scripts_no_inline_styles_and_nothing_from_other_hosts(sight, paused) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    page = ParsedPage(render(sight(), paused=paused))

    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "style", "iframe", "object", "embed", "form", "base"})
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            assert ":" not in (attributes.get(name) or "").partition("?")[0]
    refreshes = [each for tag, each in page.elements if tag == "meta" and "http-equiv" in each]
    assert bool(refreshes) is not paused


def test_names_are_text_on_one_line_each() -> None:
    page = ParsedPage(render(sights.hostile(), paused=True))

    assert "".join(page.texts).replace("\n", "").isprintable()
    for name in sights.HOSTILE:
        assert printable(name) in page.texts


def test_a_page_is_small_whatever_it_shows() -> None:
    many = [f"application {number}" for number in range(3_000)]
    crowd = sights.overview(sights.view(sights.usage(*sights.named(many), total=5_000)))

    assert len(render(crowd, paused=False)) < 100_000
    assert len(render(sights.fleet(100), paused=False)) < 300_000


def with_slots(seen: Snapshot, **slots: int) -> Snapshot:
    return replace(seen, slots=Slots(**{"total": 100, "reserved": 5, "used": len(seen.sessions), **slots}))


def test_every_slot_is_a_square_used_ones_first_and_reserved_ones_last() -> None:
    states = (IDLE, ABORTED, ACTIVE, IN_TRANSACTION, None)
    seen = snapshot(*(session(pid, state=state) for pid, state in enumerate(states, 1)))

    drawn = slot_grid(census(with_slots(seen, total=12, reserved=3), top=5))

    used = ["active", "open", "aborted", "idle", "other"]
    assert drawn.squares == [*used, *["free"] * 4, *["kept"] * 3]
    assert (drawn.slots_per_square, drawn.size) == (1, "few")


def test_a_square_of_a_large_server_is_several_slots_and_every_state_is_visible() -> None:
    drawn = slot_grid(census(with_slots(snapshot(session(1)), total=5_000), top=5))

    assert len(drawn.squares) <= 402
    assert drawn.slots_per_square == 13
    assert {"idle", "free", "kept"} == set(drawn.squares)
    assert sum(part.amount for part in drawn.parts) == 5_000


@given(snapshots, st.integers(min_value=0, max_value=300_000))
@PROPERTY
def test_the_number_of_squares_is_bounded(seen: Snapshot, total: int) -> None:
    slots = Slots(total=total, reserved=3, used=7)
    assert len(slot_grid(census(replace(seen, slots=slots), top=5)).squares) < 420


def test_a_bar_is_in_proportion_to_the_largest_group() -> None:
    drawn = bars({"idle": 3, "active": 1}, 8)

    assert [(bar.style, bar.start, bar.width) for bar in drawn] == [
        ("active", "0.00", "12.50"),
        ("idle", "12.50", "37.50"),
    ]


def test_a_trend_is_a_curve_with_gaps_where_no_snapshot_was_taken() -> None:
    drawn = curve((None, 0, 10, None, 5), top=10, width=4, height=24)

    assert drawn.line == "M1.0 23.0L2.0 1.0 M3.0 12.0L4.0 12.0"
    assert drawn.area == "M1.0 24L1.0 23.0L2.0 1.0L2.0 24Z M3.0 24L3.0 12.0L4.0 12.0L4.0 24Z"
    assert curve((None, None), top=10) == ("", "")
