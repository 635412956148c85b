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

from .command import Reaper
from .policies import FILE, leaked, policy_file

HISTORY: Final = ("--history", "history", "--history-every", "1s")
QUIET: Final = ("--listen", "off", "--audit-log", "audit.jsonl")


def files(reaper: Reaper) -> list[Path]:
    return sorted((reaper.folder / "history").glob("*.gz"))


def snapshots(reaper: Reaper) -> int:
    try:
        return sum(1 for _ in HistoryReader(files(reaper), print).snapshots())
    except BadHistory:
        return 0


def record(reaper: Reaper, *options: str) -> str:
    """Record two snapshots, end as a service manager does, and return the text of the files."""
    life = reaper.start("history", "--to", "history", "--every", "1s", *options)
    until(lambda: (life.running and snapshots(reaper) > 1) or not life.running)
    assert life.end().code == 0
    return "".join(gzip.decompress(path.read_bytes()).decode("ascii") for path in files(reaper))


def test_it_records_sessions_and_no_query(reaper: Reaper, clients: Clients, app: Role) -> None:
    client = clients.open(role=app, application="a-client")
    client.run("SELECT 'a secret literal'")

    text = record(reaper)

    assert "a-client" in text
    assert "literal" not in text
    assert {path.stat().st_mode & 0o777 for path in files(reaper)} == {0o600}


def test_names_can_be_replaced(reaper: Reaper, clients: Clients, app: Role) -> None:
    clients.open(role=app, application="checkout-7")
    clients.open(role=app, application="checkout-8")

    text = record(reaper, "--anonymize")

    assert not [name for name in ("checkout", app.name) if name in text]
    names = {row[6][2] for line in text.splitlines() for row in json.loads(line).get("came", ())} - {None}
    (prefix,) = {name.removesuffix("-7") for name in names if name.endswith("-7")}
    assert f"{prefix}-8" in names


def test_a_backtest_of_the_history_of_a_dry_run_terminates_the_same_session(
    reaper: Reaper, clients: Clients, app: Role
) -> None:
    leak = clients.open(role=app, application="leak")
    reaper.write(FILE, policy_file(leaked(app, idle_for="2s", mode="dry-run"), interval="1s"))
    life = reaper.start("run", *QUIET, *HISTORY)
    reaper.recorded("session.outcome", application="leak", outcome="dry-run")
    ended = life.end()
    assert ended.code == 0, ended.err

    done = reaper("backtest", "--history", "history", "--acts", "acts.jsonl")

    assert done.code == 0, done.err
    assert "These policies would have terminated 1 session of 1 application" in done.out
    (act,) = (json.loads(line) for line in (reaper.folder / "acts.jsonl").read_text().splitlines())
    assert (act["pid"], act["application"], act["policy"]) == (leak.pid, "leak", "leaked")


def test_a_history_that_cannot_be_written_is_reported_and_stops_no_cycle(
    reaper: Reaper, clients: Clients, app: Role
) -> None:
    leak = clients.open(role=app, application="leak")
    reaper.write(FILE, policy_file(leaked(app, idle_for="1s"), interval="1s"))

    def without_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))

    # Without bytecode: the limit would cut the files that Python caches, for all later runs too.
    life = reaper.start("run", "--listen", "off", *HISTORY, before=without_room, PYTHONDONTWRITEBYTECODE="1")

    failed = life.logged("history.failed", times=2)
    life.recorded("session.outcome", application="leak", outcome="terminated")
    until(leak.left)
    assert "File too large" in failed["why"]
    assert life.end().code == 0
    assert not files(reaper)


def test_an_unreachable_server_is_tried_again(tmp_path: Path) -> None:
    with Reaper(tmp_path, PGHOST="127.0.0.1", PGPORT="1") as reaper:
        life = reaper.start("history", "--to", "history", "--every", "1s")
        assert "retry" in life.logged("server.unreachable")
        assert life.end().code == 0


POLICIES: Final = """\
version: 1
policies:
  - name: leaked
    match: {state: [idle], idle_for: 30m}
"""


def made_up(reaper: Reaper) -> Path:
    """A history of one session that was idle for an hour, and one that was used again."""
    reaper.write(FILE, POLICIES)
    history = writer(reaper.folder / "history")
    for number in range(4):
        used = session(8, idle="10m" if number > 1 else "1h", application="used-again")
        history.write(snapshot(session(7), used, at=later(NOW, by=number * 10 * SECOND), used=2))
    history.close()
    (path,) = files(reaper)
    return path


def test_a_backtest_needs_no_server(offline: Reaper) -> None:
    made_up(offline)

    done = offline("backtest", "--history", "history", "-o", "json")

    (found,) = done.document["servers"]
    (side,) = found["sides"]
    assert (found["server"], found["readings"], side["taken"], side["used_again"]) == ("orders", 4, 2, 1)
    assert [row["application"] for row in side["applications"]] == ["used-again", "web-1"]
    assert done.err == ""


def test_two_policy_files_are_compared(offline: Reaper) -> None:
    made_up(offline)
    offline.write("new.yaml", POLICIES.replace("idle_for: 30m", "idle_for: 30m, application: [web-1]"))

    done = offline("backtest", "--history", "history", "--compare", FILE, "new.yaml")

    assert done.code == 0, done.err
    assert "Only the new policies would have terminated 0, only the old ones 1, both 1." in done.out


def test_a_torn_file_is_read_up_to_the_tear(offline: Reaper) -> None:
    path = made_up(offline)
    path.write_bytes(path.read_bytes()[:-30])

    done = offline("backtest", "--history", "history", "-o", "json")

    assert done.code == 0
    assert 0 < done.document["servers"][0]["readings"] < 4
    assert "ends within a line; read up to the last whole one" in done.err


def test_a_history_without_a_whole_snapshot_is_refused(offline: Reaper) -> None:
    path = made_up(offline)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).splitlines(keepends=True)[0]))

    done = offline("backtest", "--history", "history")

    assert (done.code, done.out) == (2, "")
    assert "neither this nor a later file of the server holds a whole snapshot" in done.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
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
def test_wrong_arguments_are_explained(offline: Reaper, arguments: tuple[str, ...], problem: str) -> None:
    made_up(offline)
    (offline.folder / "empty").mkdir()
    (offline.folder / "bad").mkdir()
    (offline.folder / "bad" / "history-x-20250618T120000Z.jsonl.gz").write_bytes(gzip.compress(b"nonsense\n"))

    done = offline(*arguments)

    assert done.code == 2
    assert problem in " ".join(done.err.replace("│", "").split())
    assert done.out == ""
