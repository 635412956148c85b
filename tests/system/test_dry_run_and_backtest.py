"""The audit log of a live dry run and a backtest of its history show the same terminations and outcomes."""

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
    "dry_runs": "taken",
    "decided": "judged",
    "used_again": "used_again",
    "left": "left",
    "unused": "unused",
    "too_soon": "too_soon",
    "unknown": "unknown",
    "regret": "regret",
    "regret_up_to": "regret_at_most",
}
"""The keys of an assessment, and of a backtest."""


def dry_run(reaper: Reaper, *policies: Keys, every: str) -> Life:
    """Start a dry run that records a history, with a cycle every second."""
    reaper.write(FILE, policy_file(*policies))
    history = ("--history", "history", "--history-every", every)
    return reaper.start("run", "--dry-run", "--listen", "off", *RECORD, *history)


def outcomes(reaper: Reaper) -> Counter[tuple[str, str]]:
    """Count the dry-run terminations by application and latest outcome."""
    last: dict[tuple[object, object], Fields] = {}
    for line in reaper.record():
        if line["event"] == "session.outcome" and line["outcome"] == "dry-run":
            last[line["pid"], line["state_change"]] = {"dry_run_outcome": "", **line}
        elif line["event"] == "session.dry_run_outcome":
            last[line["pid"], line["state_change"]] = line
    return Counter((line["application"], line["dry_run_outcome"]) for line in last.values())


def assessed(reaper: Reaper) -> Mapping[str, Mapping[str, Any]]:
    """Return what the audit log shows of each policy, with the keys of a backtest."""
    found = reaper("assess", "audit.jsonl", "--output", "json").document["policies"]
    return {
        one["policy"]: {
            **{theirs: one[ours] for ours, theirs in COUNTS.items()},
            "limit_under_1_percent": one["limit"] and one["limit"]["limit"],
        }
        for one in found
    }


def backtest(reaper: Reaper) -> tuple[Mapping[str, Mapping[str, Any]], Fields]:
    """Return what the history shows of each policy, and of all of them."""
    done = reaper("backtest", "--history", "history", "--acts", "acts.jsonl", "--output", "json")
    assert (done.code, done.err) == (0, "")
    (server,) = done.document["servers"]
    (side,) = server["sides"]
    keys = [*COUNTS.values(), "limit_under_1_percent"]
    return {one["policy"]: {key: one[key] for key in keys} for one in side["policies"]}, side


def acts_of(lines: list[Fields]) -> list[tuple[object, ...]]:
    """Return the terminated sessions in their states, with the policy."""
    keys = ("policy", "pid", "backend_start", "state_change", "state", "application")
    return sorted((tuple(line[key] for key in keys) for line in lines), key=str)


def test_the_audit_log_of_a_dry_run_and_a_backtest_of_its_history_agree(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    held: Any = {"idle_for": "1s", "safety_limit": "none", "max_per_cycle": 4}
    life = dry_run(reaper, leaked(app, **held), every="1s")
    stay, used, closed = (
        [clients.open(role=app, application=name) for _ in range(2)] for name in ("stays", "used", "closed")
    )
    until(lambda: outcomes(reaper).total() == len([*stay, *used, *closed]))

    for client in used:
        client.wake()
    for client in closed:
        client.close()
    # The used ones fall due again; by then all that stay have been watched as long as they had been idle.
    until(
        lambda: (
            outcomes(reaper)
            == {
                ("stays", "unused"): 2,
                ("used", "used-again"): 2,
                ("used", "unused"): 2,
                ("closed", "left"): 2,
            }
        )
    )
    assert life.end().code == 0

    by_history, all_of_it = backtest(reaper)
    assert by_history == assessed(reaper)
    assert by_history["leaked"]["used_again"] == 2
    assert all_of_it["uncertain"] == 0
    dry_run_before = [line for line in reaper.record() if line.get("outcome") == "dry-run"]
    acts = [json.loads(line) for line in (reaper.folder / "acts.jsonl").read_text().splitlines()]
    assert acts_of(acts) == acts_of(dry_run_before)


def test_a_session_that_was_used_and_closed_between_two_snapshots_has_left_by_the_history(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    life = dry_run(reaper, leaked(app, idle_for="1s"), every="1h")
    used = clients.open(role=app, application="used")
    until(lambda: outcomes(reaper)[("used", "")])
    used.run("BEGIN")  # and so does not fall due again
    until(lambda: outcomes(reaper)[("used", "used-again")])
    used.close()
    until(used.left)
    assert life.end().code == 0

    by_history, _ = backtest(reaper)
    by_record = assessed(reaper)

    assert (by_record["leaked"]["used_again"], by_record["leaked"]["left"]) == (1, 0)
    assert (by_history["leaked"]["used_again"], by_history["leaked"]["left"]) == (0, 1)
