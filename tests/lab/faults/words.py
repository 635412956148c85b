"""What the reapers of a campaign have said: lines of a log, and nothing else; no traceback."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from .replica import Replica

_REFUSES: Final = re.compile(r"policies\.yaml:\d+:\d+: .+|.+ nothing is terminated until it can")
"""The sentence with which it ends at the start: a mistake in its policies, or nowhere to write."""


def slips(replicas: Sequence[Replica]) -> list[str]:
    """Every line of a log that is none, or that tells of a defect."""
    return [f"{replica.name}: {slip}" for replica in replicas for slip in _slips(replica)]


def _slips(replica: Replica) -> Iterator[str]:
    for line in replica.daemon.log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            if not _REFUSES.fullmatch(line):
                yield f"no line of a log: {line}"
        else:
            if "exception" in said:
                yield f"a traceback: {line}"
