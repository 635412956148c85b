"""The audit of the dependencies says what it looked up, and fails for a finding and for nothing else."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from .command import Done
from .shell import bash, environment

AUDIT: Final = Path(os.environ.get("REAPER_CHECKOUT", Path(__file__).parents[2])) / ".ci" / "audit"
Packages = Sequence[Mapping[str, Any]]
Audit = Callable[..., Done]

FINE: Final = {"name": "click", "version": "8", "vulns": []}
UNKNOWN: Final = {"name": "rich", "skip_reason": "Dependency not found"}
HOLED: Final = {"name": "h11", "version": "0.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["0.2"]}]}


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """The script, beside an advisory source that answers as the test wants."""

    def run(packages: Packages = (), *, code: int = 0, said: str = "") -> Done:
        (tmp_path / "report").write_text(json.dumps({"dependencies": packages}) if packages else "")
        source = f'#!/bin/sh\necho "{said}" >&2\nwhile [ "$1" != --output ]; do shift; done\n'
        stub(tmp_path / "pip-audit", f'{source}cat {tmp_path}/report >"$2"\nexit {code}\n')
        stub(tmp_path / "cyclonedx-py", "#!/bin/sh\nwhile [ $1 != --output-file ]; do shift; done\n: >$2\n")
        asked = environment(tmp_path / "home")
        asked["PATH"] = f"{tmp_path}:{asked['PATH']}"
        return bash(f"{AUDIT} {tmp_path} || exit $?", folder=tmp_path, environment=asked)

    return run


def stub(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")
    path.chmod(0o755)


def test_a_finding_is_red_and_names_the_version_that_mends_it(audit: Audit) -> None:
    done = audit([FINE, HOLED], code=1)

    assert done.code == 1
    assert "looked up for 2 of 2 locked packages: 1 found" in done.out
    assert "h11 0.1: PYSEC-1, mended in 0.2" in done.out


def test_what_was_not_looked_up_is_counted_and_not_taken_for_clean(audit: Audit) -> None:
    assert "looked up for 1 of 2 locked packages: 0 found" in audit([FINE, UNKNOWN]).out
    assert "no advisories looked up: the source knows none of the 1" in audit([UNKNOWN]).out


def test_a_source_that_is_out_of_reach_is_told_and_is_no_failure(audit: Audit) -> None:
    done = audit(code=1, said="ConnectionError: no route to host")

    assert done.code == 0
    assert "no advisories looked up: ConnectionError: no route to host" in done.out
