"""A live dry run with a history beside it: its record and a backtest of that history must say the same.

Both judge by the same code, but one has seen with every cycle what became of whom, the other in the readings
of the history alone.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Fields, Life, Reaper
from .policies import FILE, Keys, leaked, policy_file
from .service import RECORD

COUNTS: Final = {
    "acts": "taken",
    "judged": "judged",
    "revived": "used_again",
    "left": "left",
    "unused": "unused",
    "too_soon": "too_soon",
    "unknown": "unknown",
    "regret": "regret",
    "regret_up_to": "regret_at_most",
}
"""What the one calls them, and the other."""


def keeping(reaper: Reaper, *policies: Keys, every: str) -> Life:
    """A service that keeps a history; a cycle every second, so that what becomes of whom is seen soon."""
    reaper.write(FILE, policy_file(*policies))
    history = ("--history", "history", "--history-every", every)
    return reaper.start("run", "--dry-run", "--listen", "off", *RECORD, *history)


def fates_of(reaper: Reaper) -> Counter[tuple[str, str]]:
    """How many acts on each application have come to each fate by now, each act by what was told last."""
    told: dict[tuple[object, object], Fields] = {}
    for line in reaper.record():
        if line["event"] == "session.outcome" and line["outcome"] == "rehearsed":
            told[line["pid"], line["state_change"]] = {"fate": "", **line}
        elif line["event"] == "session.fate":
            told[line["pid"], line["state_change"]] = line
    return Counter((line["application"], line["fate"]) for line in told.values())


def verdicts(reaper: Reaper) -> Mapping[str, Mapping[str, Any]]:
    """What the record says of each policy, in the words of a backtest."""
    found = reaper("rehearsal", "audit.jsonl", "--output", "json").document["policies"]
    return {
        one["policy"]: {
            **{theirs: one[ours] for ours, theirs in COUNTS.items()},
            "limit_under_1_percent": one["limit"] and one["limit"]["limit"],
        }
        for one in found
    }


def backtest(reaper: Reaper) -> tuple[Mapping[str, Mapping[str, Any]], Fields]:
    """What the history says of each policy, and of all of them."""
    done = reaper("backtest", "--history", "history", "--acts", "acts.jsonl", "--output", "json")
    assert (done.code, done.err) == (0, "")
    (server,) = done.document["servers"]
    (side,) = server["sides"]
    keys = [*COUNTS.values(), "limit_under_1_percent"]
    return {one["policy"]: {key: one[key] for key in keys} for one in side["policies"]}, side


def acts_of(lines: list[Fields]) -> list[tuple[object, ...]]:
    """Who was taken, as they were, and by which policy."""
    keys = ("policy", "pid", "backend_start", "state_change", "state", "application")
    return sorted((tuple(line[key] for key in keys) for line in lines), key=str)


def test_the_record_of_a_dry_run_and_a_backtest_of_its_history_tell_the_same_acts_and_the_same_verdict(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    held: Any = {"idle_for": "1s", "safety_limit": "none", "max_per_cycle": 4}
    life = keeping(reaper, leaked(app, **held), every="1s")
    stay, used, closed = (
        [clients.open(role=app, application=name) for _ in range(2)] for name in ("stays", "used", "closed")
    )
    until(lambda: fates_of(reaper).total() == len([*stay, *used, *closed]))

    for client in used:
        client.wake()
    for client in closed:
        client.close()
    # The used ones fall due again; by then all that stay have been watched as long as they had been idle.
    until(
        lambda: (
            fates_of(reaper)
            == {
                ("stays", "unused"): 2,
                ("used", "revived"): 2,
                ("used", "unused"): 2,
                ("closed", "left"): 2,
            }
        )
    )
    assert life.end().code == 0

    by_history, all_of_it = backtest(reaper)
    assert by_history == verdicts(reaper)
    assert by_history["leaked"]["used_again"] == 2
    assert all_of_it["uncertain"] == 0
    rehearsed = [line for line in reaper.record() if line.get("outcome") == "rehearsed"]
    acts = [json.loads(line) for line in (reaper.folder / "acts.jsonl").read_text().splitlines()]
    assert acts_of(acts) == acts_of(rehearsed)


def test_who_was_used_and_then_closed_between_two_readings_has_only_left_by_the_history(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    life = keeping(reaper, leaked(app, idle_for="1s"), every="1h")
    used = clients.open(role=app, application="used")
    until(lambda: fates_of(reaper)[("used", "")])
    used.run("BEGIN")  # and so does not fall due again
    until(lambda: fates_of(reaper)[("used", "revived")])
    used.close()
    until(used.left)
    assert life.end().code == 0

    by_history, _ = backtest(reaper)
    by_record = verdicts(reaper)

    assert (by_record["leaked"]["used_again"], by_record["leaked"]["left"]) == (1, 0)
    assert (by_history["leaked"]["used_again"], by_history["leaked"]["left"]) == (0, 1)
