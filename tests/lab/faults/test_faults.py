"""A few faults on a small load, judged as in a long run; and what the chains of audit logs are held to."""

import subprocess
import sys
from typing import Any, Final

from tests.lab.clients.sleepers import ROOT

from .evidence import chain_in

FAULTS: Final = "crash,SIGKILL,of leaks,pg_authid,link cut,audit truncated"


def test_no_fault_leads_to_a_wrong_termination_and_everything_goes_on_by_itself() -> None:
    command = (
        sys.executable,
        "-m",
        "tests.lab",
        "faults",
        "--scale",
        "smoke",
        "--rounds",
        "5",
        "--only",
        FAULTS,
    )

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every invariant held." in done.stdout


def answer(*explained: str | None, more: int = 0) -> dict[str, Any]:
    damages = [
        {"file": "a", "line": 7, "kind": "missing", "sentence": "2 lines", "explained": why}
        for why in explained
    ]
    return {"records": [{"lines": 4}, {"lines": 3}], "damages": damages, "more_damages": more}


def test_damage_that_the_audit_log_explains_is_what_a_fault_leaves() -> None:
    chain = chain_in(answer("a:8 explains it"), name="first", cuts=0)
    assert (chain.lines, chain.explained, chain.unexplained, list(chain.wrong)) == (7, 1, [], [])


def test_damage_without_an_explanation_is_wrong_unless_a_fault_has_done_it() -> None:
    assert list(chain_in(answer(None), name="first", cuts=0).wrong) == ["a:7: missing: 2 lines"]
    assert list(chain_in(answer(None), name="first", cuts=1).wrong) == []
    assert len(chain_in(answer(None, None, None), name="first", cuts=1).wrong) == 2
    assert len(chain_in(answer(more=2), name="first", cuts=1).wrong) == 1


def test_a_cut_that_was_missed_is_wrong_and_two_that_were_found_as_one_are_not() -> None:
    assert len(chain_in(answer(), name="first", cuts=1).wrong) == 1
    assert list(chain_in(answer(None), name="first", cuts=2).wrong) == []
