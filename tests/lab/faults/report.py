"""The result of a run of faults: what is in the files of the reapers, tables, and every broken invariant."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Self

from reaper.telemetry import events
from tests.lab.judge.terminations import Findings, JudgedTermination, Judgement
from tests.lab.report import NOTHING, figure, figures, table

from .rounds import Round
from .supervised import MemorySample, SupervisedReaper
from .world import LEASE, FaultWorld

_ANSWERED: Final = (0, 1)
_REFUSAL: Final = re.compile(r"policies\.yaml:\d+:\d+: .+|hint: .+|.+ nothing is terminated until it can.*")
"""What a reaper prints that refuses to start: a mistake in the policy file, or no audit log."""
_WARM_UP: Final = 2
_MAX_GROWTH: Final = 24.0
"""MiB by which a run may grow after its first two rounds: far more than noise, far less than a leak."""
_NEVER: Final = (404, 500)
"""Statuses that no page may answer: a reaper that is not ready answers 503 or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain:
    """The result of `reaper audit verify` for one reaper."""

    name: str
    lines: int = 0
    cuts: int = 0
    """How many times a fault had cut off its end."""
    explained: int = 0
    """Damages that the audit log itself explains, such as those of a crash."""
    unexplained: Sequence[str]

    @property
    def wrong(self) -> Sequence[str]:
        """Damages that neither the audit log nor a fault explains, or that a cut was missed."""
        if self.cuts and not self.unexplained:
            return [f"verify has missed that the end was cut off {self.cuts} times"]
        return self.unexplained[: max(0, len(self.unexplained) - self.cuts)]


def _chain(reaper: SupervisedReaper) -> VerifiedChain:
    done = reaper.command("audit", "verify", str(reaper.audit), "--output", "json")
    if done.code not in _ANSWERED:
        failure = [f"verify ended with {done.code}: {done.err}"]
        return VerifiedChain(name=reaper.name, unexplained=failure)
    return chain_in(done.document, name=reaper.name, cuts=reaper.cuts)


def chain_in(document: Mapping[str, Any], *, name: str, cuts: int) -> VerifiedChain:
    """The answer of `reaper audit verify`."""
    damages = document["damages"]
    unexplained = [
        f"{each['file']}:{each['line']}: {each['kind']}: {each['sentence']}"
        for each in damages
        if not each["explained"]
    ]
    return VerifiedChain(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRun:
    """A finished run: its world, its rounds, the judgement of each termination, and the files."""

    world: FaultWorld
    rounds: Sequence[Round]
    found: Findings
    chains: Sequence[VerifiedChain]
    unread: Sequence[str]
    """Histories that cannot be read."""
    bad_lines: Sequence[str]
    """Lines of a log that are not events, or have a traceback."""

    @classmethod
    async def of(cls, world: FaultWorld, rounds: Sequence[Round], found: Findings) -> Self:
        """Run the real commands on the files of the reapers."""
        reapers = world.reapers
        return cls(
            world=world,
            rounds=rounds,
            found=found,
            chains=[await asyncio.to_thread(_chain, each) for each in reapers if each.audit.exists()],
            unread=[text for each in reapers if (text := await asyncio.to_thread(_unread, each))],
            bad_lines=[line for each in reapers for line in _bad_lines(each)],
        )

    @property
    def violations(self) -> list[str]:
        """Every invariant that did not hold, in a sentence each."""
        found = self.found
        problems = [(each, what) for each in self.rounds for what in each.problems]
        growths = [(reaper, run, _growth(run) or 0.0) for reaper, run in self._runs()]
        return [
            *(f"{_named(each)}: {what}" for each, what in problems),
            *(f"{self._when(case)}: {case.why}: {case.termination.key}" for case in self._wrong(found.cases)),
            *(f"{self._when(case)}: no intent: {case.termination.key}" for case in found.unannounced),
            *(f"an intent without an outcome: {intent}" for intent in found.open_intents),
            *(f"two acted at once: {one} and {other}" for one, other in found.overlaps),
            *(f"the audit log of {each.name}: {what}" for each in self.chains for what in each.wrong),
            *self.unread,
            *self._bad_answers,
            *self.bad_lines,
            *self._breaches,
            *(
                f"{reaper.name} grew by {growth:.0f} MiB in {len(run)} rounds"
                for reaper, run, growth in growths
                if growth > _MAX_GROWTH
            ),
        ]

    @property
    def tables(self) -> Iterator[str]:
        """All tables."""
        yield self._faults()
        yield figures("Invariants", self._invariants())
        yield self._resources()
        if self.world.losses:
            yield self._take_overs()
        if self.world.notes:
            yield figures("How the faults happened", dict(sorted(self.world.notes.items())))

    def _faults(self) -> str:
        by_name = defaultdict[str, list[Round]](list)
        for each in self.rounds:
            for name in each.faults:
                by_name[name].append(each)
        head = ("", "rounds", "in pairs", "noticed", "back after, median", "max")
        more = ("terminated", "wrong", "stuck")
        return table(
            "Faults", (*head, *more), [self._row(name, each) for name, each in sorted(by_name.items())]
        )

    def _row(self, name: str, struck: Sequence[Round]) -> Sequence[str]:
        back = [each.back_after for each in struck if each.back_after is not None]
        during = [case for case in self.found.cases if any(_in(each, case) for each in struck)]
        noticed, missed = self.world.noticed[name, True], self.world.noticed[name, False]
        return (
            name,
            str(len(struck)),
            str(sum(len(each.faults) > 1 for each in struck)),
            f"{noticed} of {noticed + missed}" if noticed + missed else NOTHING,
            figure(median(back), "s") if back else NOTHING,
            figure(max(back), "s") if back else NOTHING,
            *(str(len(each)) for each in (during, self._wrong(during))),
            str(sum(bool(each.problems) for each in struck)),
        )

    def _invariants(self) -> dict[str, int]:
        found, chains = self.found, self.chains
        return {
            "rounds": len(self.rounds),
            "sessions terminated by the reaper": len(found.cases),
            **{f"  {judgement}": len(found.of(judgement)) for judgement in Judgement},
            "  without an intent": len(found.unannounced),
            "terminations that clients report as well": found.client_losses,
            "intents that the end of a run left open, settled as unknown": len(found.orphans),
            "intents without an outcome": len(found.open_intents),
            "periods in which nothing may be terminated": len(self.world.quiet_periods),
            "  terminated all the same": len(self._breaches),
            "two reapers acting at once": len(found.overlaps),
            "lines in the chains of the audit logs": sum(each.lines for each in chains),
            "  torn or cut by a fault, and explained there": sum(each.explained for each in chains),
            "  cut off the end, times": sum(each.cuts for each in chains),
            "  found by audit verify": sum(len(each.unexplained) for each in chains),
            "  of them not done by a fault": sum(len(each.wrong) for each in chains),
            "histories that cannot be read": len(self.unread),
            "pages that were opened": self.world.answers.total(),
            "  404 or 500": len(self._bad_answers),
            "lines of logs that are not events, or have a traceback": len(self.bad_lines),
            "rounds after which something did not continue": sum(bool(each.problems) for each in self.rounds),
        }

    def _resources(self) -> str:
        rows = []
        for reaper, run in self._runs():
            memory = (run[0].rss, run[-1].rss, _growth(run))
            sizes = (NOTHING if each is None else figure(each, "MiB") for each in memory)
            rows.append((f"{reaper.name} {run[0].pid}", str(len(run)), *sizes))
        head = ("reaper, run", "rounds", "RSS first", "last", "growth")
        return table("Memory of every run of three rounds or more", head, rows)

    def _runs(self) -> Iterator[tuple[SupervisedReaper, list[MemorySample]]]:
        for reaper in self.world.reapers:
            runs = defaultdict[int, list[MemorySample]](list)
            for sample in reaper.samples:
                runs[sample.pid].append(sample)
            yield from ((reaper, run) for run in runs.values() if len(run) > _WARM_UP)

    def _take_overs(self) -> str:
        gaps = defaultdict[str, list[float]](list)
        for how, at in self.world.losses:
            # The lost one counts too: it may be back before a standby tries.
            leads = [
                event.at
                for reaper in self.world.reapers
                for event in reaper.log.named(events.LEADS, since=at)
            ]
            if leads:
                gaps[how].append(100 * (min(leads) - at) / LEASE)
        rows = [
            (how, str(len(shares)), figure(median(shares), "%"), figure(max(shares), "%"))
            for how, shares in sorted(gaps.items())
        ]
        title = f"From the loss of a leader to the next one, as a share of the lease of {LEASE:g} s"
        return table(title, ("the leader was lost by", "times", "median", "max"), rows)

    @property
    def _breaches(self) -> list[str]:
        return [
            f"terminated {period.why}: {case.termination.key}"
            for period in self.world.quiet_periods
            for case in self.found.cases
            if period.since <= case.at < period.until
        ]

    @property
    def _bad_answers(self) -> list[str]:
        answers = sorted(self.world.answers.items())
        return [f"/{page} answered {status}, {n} times" for (page, status), n in answers if status in _NEVER]

    def _wrong(self, cases: Sequence[JudgedTermination]) -> list[JudgedTermination]:
        return [case for case in cases if case.judgement is Judgement.WRONG]

    def _when(self, case: JudgedTermination) -> str:
        return next((_named(each) for each in self.rounds if _in(each, case)), "between rounds")


def _named(each: Round) -> str:
    return f"round {each.number} ({' + '.join(each.faults)})"


def _in(each: Round, case: JudgedTermination) -> bool:
    return each.began <= case.at < each.ended


def _growth(run: Sequence[MemorySample]) -> float | None:
    return run[-1].rss - run[_WARM_UP].rss if len(run) > _WARM_UP + 1 else None
