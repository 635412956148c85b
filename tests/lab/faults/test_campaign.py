"""A short campaign: a few faults on a small load, judged as in the long one."""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
FAULTS: Final = "crash,SIGKILL,of leaks,pg_authid,link cut,audit truncated"
COMMAND: Final = (sys.executable, "-m", "tests.lab", "faults", "--scale", "smoke")


def test_whatever_goes_wrong_nobody_is_terminated_who_did_not_deserve_it_and_all_goes_on_by_itself() -> None:
    done = subprocess.run(
        [*COMMAND, "--rounds", "5", "--only", FAULTS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every invariant held." in done.stdout
