"""`reaper history`, `reaper run --history` and `reaper backtest`, as people type them."""

import gzip
import json
import resource
from pathlib import Path
from typing import Final

import pytest

from reaper.history.decode import BadHistory
from reaper.history.read import HistoryReader
from reaper.policy.time import SECOND
from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until
from tests.unit.history.histories import writer
from tests.unit.policy.build import NOW, later, session, snapshot

from .command import Life, Reaper
from .policies import FILE, leaked, policy_file

HISTORY: Final = ("--history", "history", "--history-every", "1s")
QUIET: Final = ("--listen", "off", "--audit-log", "audit.jsonl")


def files(reaper: Reaper, folder: str = "history") -> list[Path]:
    return sorted((reaper.folder / folder).glob("*.gz"))


def readings(reaper: Reaper, folder: str = "history") -> int:
    try:
        return sum(1 for _ in HistoryReader(files(reaper, folder), print).snapshots())
    except BadHistory:
        return 0


def text_of(reaper: Reaper) -> str:
    return "".join(gzip.decompress(path.read_bytes()).decode("ascii") for path in files(reaper))


def recorded(reaper: Reaper, *options: str, many: int = 2) -> Life:
    """A history of so many readings, ended as a service manager does."""
    life = reaper.start("history", "--to", "history", "--every", "1s", *options)
    until(lambda: (life.running and readings(reaper) >= many) or not life.running)
    assert life.end().code == 0
    return life


def test_it_keeps_who_is_there_and_no_query(reaper: Reaper, clients: Clients, app: Role) -> None:
    client = clients.open(role=app, application="keeps-a-secret")
    client.run("SELECT 'a literal that nobody else should see'")

    recorded(reaper)

    assert "keeps-a-secret" in text_of(reaper)
    assert "literal" not in text_of(reaper)
    assert {path.stat().st_mode & 0o777 for path in files(reaper)} == {0o600}


def test_names_can_be_told_as_others(reaper: Reaper, clients: Clients, app: Role) -> None:
    clients.open(role=app, application="checkout-7")
    clients.open(role=app, application="checkout-8")

    recorded(reaper, "--anonymize")

    told = text_of(reaper)
    assert not [name for name in ("checkout", app.name) if name in told]
    names = {row[-2] for line in told.splitlines() for row in json.loads(line).get("came", ())} - {None}
    (prefix,) = {name.removesuffix("-7") for name in names if name.endswith("-7")}
    assert f"{prefix}-8" in names


def test_beside_the_cycles_it_keeps_what_a_backtest_then_takes_as_well(
    reaper: Reaper, clients: Clients, app: Role
) -> None:
    leak = clients.open(role=app, application="leak")
    reaper.write(FILE, policy_file(leaked(app, idle_for="2s", mode="dry-run"), interval="1s"))
    life = reaper.start("run", *QUIET, *HISTORY)
    reaper.recorded("session.outcome", application="leak", outcome="rehearsed")
    ended = life.end()
    print(ended.err)  # noqa: T201 (shown when it fails)
    assert ended.code == 0

    done = reaper("backtest", "--history", "history", "--acts", "acts.jsonl")

    assert done.code == 0, done.err
    assert "These policies would have terminated 1 session of 1 application" in done.out
    (act,) = (json.loads(line) for line in (reaper.folder / "acts.jsonl").read_text().splitlines())
    assert (act["pid"], act["application"], act["policy"]) == (leak.pid, "leak", "leaked")


def test_what_cannot_be_kept_is_told_and_stops_nothing(reaper: Reaper, clients: Clients, app: Role) -> None:
    leak = clients.open(role=app, application="leak")
    reaper.write(FILE, policy_file(leaked(app, idle_for="1s"), interval="1s"))

    def without_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))

    life = reaper.start("run", "--listen", "off", *HISTORY, before=without_room)

    failed = life.logged("history.failed", times=2)
    life.recorded("session.outcome", application="leak", outcome="terminated")
    until(leak.left)
    assert "File too large" in failed["why"]
    assert life.end().code == 0
    assert not files(reaper)


def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    with Reaper(tmp_path, PGHOST="127.0.0.1", PGPORT="1") as reaper:
        life = reaper.start("history", "--to", "history", "--every", "1s")
        assert "retry" in life.logged("server.unreachable")
        assert life.end().code == 0


def made_up(folder: Path, many: int = 4) -> None:
    """A history of one session that was idle for an hour, and one that was used again."""
    keeper = writer(folder)
    for number in range(many):
        woke = session(8, idle="10m" if number > 1 else "1h", application="used-again")
        keeper.write(snapshot(session(7), woke, at=later(NOW, by=number * 10 * SECOND), used=2))
    keeper.close()


POLICIES: Final = """\
version: 1
policies:
  - name: leaked
    match: {state: [idle], idle_for: 30m}
"""


def test_a_backtest_needs_no_server(offline: Reaper) -> None:
    made_up(offline.folder / "history")
    offline.write(FILE, POLICIES)

    done = offline("backtest", "--history", "history", "-o", "json")

    (found,) = done.document["servers"]
    (side,) = found["sides"]
    assert (found["server"], found["readings"], side["taken"], side["used_again"]) == ("orders", 4, 2, 1)
    assert [row["application"] for row in side["applications"]] == ["used-again", "web-1"]
    assert done.err == ""


def test_two_files_are_put_side_by_side(offline: Reaper) -> None:
    made_up(offline.folder / "history")
    offline.write("old.yaml", POLICIES)
    offline.write("new.yaml", POLICIES.replace("idle_for: 30m", "idle_for: 30m, application: [web-1]"))

    done = offline("backtest", "--history", "history", "--compare", "old.yaml", "new.yaml")

    assert done.code == 0, done.err
    assert "Only the new policies would have terminated 0, only the old ones 1, both 1." in done.out


def test_a_torn_history_is_read_up_to_the_tear_and_said_to_be(offline: Reaper) -> None:
    made_up(offline.folder / "history")
    offline.write(FILE, POLICIES)
    (path,) = files(offline)
    path.write_bytes(path.read_bytes()[:-30])

    done = offline("backtest", "--history", "history", "-o", "json")

    assert done.code == 0
    assert 0 < done.document["servers"][0]["readings"] < 4
    assert "ends within a line; read up to the last whole one" in done.err


def test_a_history_without_a_whole_look_is_no_answer(offline: Reaper) -> None:
    made_up(offline.folder / "history")
    offline.write(FILE, POLICIES)
    (path,) = files(offline)
    head = gzip.decompress(path.read_bytes()).splitlines(keepends=True)[0]
    path.write_bytes(gzip.compress(head))

    done = offline("backtest", "--history", "history")

    assert (done.code, done.out) == (2, "")
    assert "holds a whole snapshot" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("backtest", "--history", "empty"), "no history is there"),
        (("backtest", "--history", "bad"), "bad/history-x-20250618T120000Z.jsonl.gz:1: not JSON"),
        (("backtest", "--history", "nowhere"), "does not exist"),
        (("backtest", "--history", "history", "--server", "x"), "no history of a server 'x' is there"),
        (("backtest", "--history", "history", "--html", "/nowhere/r.html"), "cannot be written"),
        (("history", "--to", "h", "--every", "0s"), "0s: write at least 1s and at most 1h"),
        (("history", "--to", "h", "--every", "soon"), "'soon' is not a duration"),
        (("history", "--to", "h", "--most", "7"), "'7' is no size"),
        (("history", "--to", "/dev/null/h"), "cannot be written"),
    ],
)
def test_what_is_asked_for_wrongly_is_told(offline: Reaper, arguments: tuple[str, ...], told: str) -> None:
    offline.write(FILE, POLICIES)
    (offline.folder / "empty").mkdir()
    (offline.folder / "bad").mkdir()
    (offline.folder / "bad" / "history-x-20250618T120000Z.jsonl.gz").write_bytes(gzip.compress(b"nonsense\n"))
    made_up(offline.folder / "history")

    done = offline(*arguments)

    assert done.code == 2
    assert told in " ".join(done.err.replace("│", "").split())
    assert done.out == ""
