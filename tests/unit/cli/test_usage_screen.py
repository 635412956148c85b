"""The screen of `reaper usage`, on any terminal and with any names."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from reaper.cli.usage_view import Screen, ShownUsage
from reaper.policy.session import ABORTED, IN_TRANSACTION
from reaper.telemetry.http.views import Overview
from tests.unit.policy.build import session, sessions
from tests.unit.telemetry.sights import (
    HOSTILE,
    line,
    named,
    overview,
    usage,
    view,
)


def drawn(seen: Overview, *, width: int = 80) -> str:
    """Return the screen on a terminal of this width, without colours."""
    out = io.StringIO()
    shown = seen.shown.usage if seen.shown else None
    console = Console(file=out, width=width, color_system=None, legacy_windows=False)
    console.print(Screen(ShownUsage(usage=shown, service=seen, url="http://127.0.0.1:9432")))
    return out.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_client_or_service_moves_a_cursor(name: str) -> None:
    seen = usage(*named([name]))
    (forgotten,) = seen.census.transactions
    seen = replace(
        seen,
        census=replace(seen.census, at=name, server=name, transactions=(replace(forgotten, state=name),)),
    )

    text = drawn(overview(view(seen, name=name, policy=name), line(name)))
    fleet = drawn(overview(None, line(name, state=name, why=name), line("orders")))

    for shown in (text, fleet):
        assert [letter for letter in shown if letter != "\n" and not letter.isprintable()] == []


@pytest.mark.parametrize("width", [30, 40, 60, 75, 80, 200])
def test_no_number_is_cut_however_narrow_the_terminal_is(width: int) -> None:
    seen = overview(view(usage(*sessions(40, application="web-1", idle="1h2m3s"))))

    rows = [row for row in drawn(seen, width=width).splitlines() if row.startswith("web-1")]

    assert rows
    assert [row.split()[1] for row in rows] == ["40"]
    assert all("1h2m" in row.split() for row in rows)
    assert all(len(row) <= width for row in rows)


def test_a_transaction_that_failed_is_shown_with_how_long_it_has_waited() -> None:
    failed = session(7, state=ABORTED, idle="12m")
    waits = session(8, state=IN_TRANSACTION, idle="3m", in_transaction="2h")

    text = " ".join(drawn(overview(view(usage(failed, waits))), width=200).split())

    assert "idle in transaction (aborted) for 12m" in text
    assert "idle in transaction for 3m, open for 2h" in text


def test_an_unreachable_server_of_a_fleet_comes_with_the_reason() -> None:
    gone = line("billing", used=None, state="away", why="connection refused: is it running?")

    text = " ".join(drawn(overview(None, gone, line("orders"))).split())

    assert "billing: connection refused: is it running?" in text


def test_one_session_is_one() -> None:
    assert "\n1 session: 1 idle\n" in drawn(overview(view(usage(session(7)))))
