"""What the files of the reapers show: chains of audit logs, histories, lines of logs."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .supervised import SupervisedReaper

_ANSWERED: Final = (0, 1)
_REFUSAL: Final = re.compile(r"policies\.yaml:\d+:\d+: .+|hint: .+|.+ nothing is terminated until it can.*")
"""What a reaper prints that refuses to start: a mistake in the policy file, or no audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What `reaper audit verify` finds in the audit log of one reaper."""

    name: str
    lines: int
    cuts: int
    """How often a fault had cut off its end."""
    explained: int
    """Damages that the audit log itself explains, such as those of a crash."""
    unexplained: Sequence[str]

    @property
    def wrong(self) -> Sequence[str]:
        """Damages that neither the audit log nor a fault explains, or that a cut was missed."""
        if self.cuts and not self.unexplained:
            return [f"verify has missed that the end was cut off {self.cuts} times"]
        return self.unexplained[: max(0, len(self.unexplained) - self.cuts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was found in files."""

    chains: Sequence[Chain]
    unread: Sequence[str]
    """Histories that cannot be read."""
    bad_lines: Sequence[str]
    """Lines of a log that are not events, or have a traceback."""


async def collect(reapers: Sequence[SupervisedReaper]) -> Evidence:
    """Run the real commands on the files of these reapers."""
    logged = [reaper for reaper in reapers if reaper.audit.exists()]
    return Evidence(
        chains=[await asyncio.to_thread(_chain, reaper) for reaper in logged],
        unread=[text for reaper in reapers if (text := await asyncio.to_thread(_unread, reaper))],
        bad_lines=[line for reaper in reapers for line in _bad_lines(reaper)],
    )


def _chain(reaper: SupervisedReaper) -> Chain:
    done = reaper.command("audit", "verify", str(reaper.audit), "--output", "json")
    if done.code not in _ANSWERED:
        failure = [f"verify ended with {done.code}: {done.err}"]
        return Chain(name=reaper.name, lines=0, cuts=0, explained=0, unexplained=failure)
    return chain_in(done.document, name=reaper.name, cuts=reaper.cuts)


def chain_in(document: Mapping[str, Any], *, name: str, cuts: int) -> Chain:
    """The answer of `reaper audit verify`."""
    damages = document["damages"]
    unexplained = [
        f"{each['file']}:{each['line']}: {each['kind']}: {each['sentence']}"
        for each in damages
        if not each["explained"]
    ]
    return Chain(
        name=name,
        lines=sum(record["lines"] for record in document["records"]),
        cuts=cuts,
        explained=len(damages) - len(unexplained),
        unexplained=[*unexplained, *["one more"] * document["more_damages"]],
    )


def _unread(reaper: SupervisedReaper) -> str:
    history = reaper.disk / "history"
    if not any(history.glob("history-*")):
        return ""
    done = reaper.command("backtest", "--history", str(history))
    return "" if done.code == 0 else f"the history of {reaper.name}: {done.code}: {done.err}"


def _bad_lines(reaper: SupervisedReaper) -> Iterator[str]:
    for line in reaper.log.path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            if not _REFUSAL.fullmatch(line):
                yield f"{reaper.name}: not a line of a log: {line}"
        else:
            if "exception" in fields:
                yield f"{reaper.name}: a traceback: {line}"
