"""The tables that a campaign prints."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Final

from reaper.telemetry import events
from tests.lab.benchmarks.table import NOTHING, figure, table

from .campaign import Round
from .judge import Case, Findings, Judgement
from .notes import Truce
from .replica import Replica, Sample
from .steps import Step
from .words import slips
from .world import LEASE, World

_MOST_SHOWN: Final = 20
_WARM_UP: Final = 2
_MOST_GROWTH: Final = 24.0
"""MiB that a life may grow by after its first two rounds: far more than noise, far less than a leak."""


def violations(world: World, done: Sequence[Round], found: Findings) -> list[str]:
    """Every invariant that did not hold, in a sentence each."""
    troubles = [
        f"round {each.number} ({' + '.join(each.faults)}): {what}" for each in done for what in each.troubles
    ]
    return [
        *troubles,
        *(f"{_when(done, case)}: {case.why}: {case.termination.who}" for case in found.of(Judgement.WRONG)),
        *(f"{_when(done, case)}: no intent: {case.termination.who}" for case in found.unannounced),
        *(f"an intent without an outcome: {deed}" for deed in found.open_intents),
        *(f"two acted at once: {one} and {other}" for one, other in found.rivals),
        *(f"the record of {chain.name}: {what}" for chain in found.chains for what in chain.wrong),
        *found.unread,
        *world.visitor.wrong,
        *slips(world.reapers),
        *(f"terminated {truce.why}: {case.termination.who}" for truce, case in _breaches(world, found)),
        *(
            f"{replica.name} grew by {growth:.0f} MiB in {len(life)} rounds"
            for replica, life in _lives(world.reapers)
            if (growth := _growth(life)) is not None and growth > _MOST_GROWTH
        ),
    ]


def tables(world: World, done: Sequence[Round], found: Findings) -> Iterator[str]:
    """Everything worth knowing."""
    yield _faults(world, done, found)
    yield _invariants(world, done, found)
    yield _resources(world.reapers)
    if world.losses:
        yield _take_overs(world)
    if world.blows:
        yield _blows(world.blows)
    if world.notes:
        rows = [(what, str(number)) for what, number in sorted(world.notes.items())]
        yield table("How the faults struck", ("", "times"), rows)


def _faults(world: World, done: Sequence[Round], found: Findings) -> str:
    by_name = defaultdict[str, list[Round]](list)
    for each in done:
        for name in each.faults:
            by_name[name].append(each)
    head = ("", "struck", "in pairs", "felt", "back after, median", "max", "terminated", "wrong", "stuck")
    rows = [_row(name, _felt(world, name), struck, found.cases) for name, struck in sorted(by_name.items())]
    return table("Faults", head, rows)


def _row(name: str, felt: str, struck: Sequence[Round], cases: Iterable[Case]) -> Sequence[str]:
    back = [each.back_after for each in struck if each.back_after is not None]
    during = [case for case in cases if any(_in(each, case) for each in struck)]
    return (
        name,
        str(len(struck)),
        str(sum(len(each.faults) > 1 for each in struck)),
        felt,
        figure(median(back), "s") if back else NOTHING,
        figure(max(back), "s") if back else NOTHING,
        str(len(during)),
        str(sum(case.judgement is Judgement.WRONG for case in during)),
        str(sum(bool(each.troubles) for each in struck)),
    )


def _felt(world: World, name: str) -> str:
    awaited = world.felt[name, True] + world.felt[name, False]
    return f"{world.felt[name, True]} of {awaited}" if awaited else NOTHING


def _breaches(world: World, found: Findings) -> Iterator[tuple[Truce, Case]]:
    for truce in world.truces:
        yield from ((truce, case) for case in found.cases if truce.since <= case.at < truce.until)


def _invariants(world: World, done: Sequence[Round], found: Findings) -> str:
    counted = Counter(case.judgement for case in found.cases)
    rows = [
        ("rounds", str(len(done))),
        ("sessions terminated by the reaper", str(len(found.cases))),
        *((f"  {judgement}", str(counted[judgement])) for judgement in Judgement),
        ("  without an intent", str(len(found.unannounced))),
        ("terminated by the campaign itself", str(found.by_others)),
        ("losses that clients heard of themselves", str(found.losses)),
        ("intents that an end left open, settled as unknown", str(len(found.orphans))),
        ("  terminated all the same", str(found.orphans_gone)),
        ("intents without an outcome", str(len(found.open_intents))),
        ("times in which nobody may be terminated", str(len(world.truces))),
        ("  terminated all the same", str(len(list(_breaches(world, found))))),
        ("two reapers acting at once", str(len(found.rivals))),
        ("lines in the chains of the records", str(sum(chain.lines for chain in found.chains))),
        ("  torn or cut by a blow, and told of there", str(sum(chain.told for chain in found.chains))),
        ("  cut off the end by the campaign, times", str(sum(chain.cuts for chain in found.chains))),
        ("  found by audit verify", str(sum(len(chain.untold) for chain in found.chains))),
        ("  of them not done by the campaign", str(sum(len(chain.wrong) for chain in found.chains))),
        ("histories that cannot be read", str(len(found.unread))),
        ("pages that a visitor got", str(world.visitor.answers.total())),
        ("  404 or 500", str(len(world.visitor.wrong))),
        ("lines of logs that are none, or tell of a defect", str(len(slips(world.reapers)))),
        ("rounds in which something did not go on by itself", str(sum(bool(each.troubles) for each in done))),
    ]
    return table("Invariants", ("", ""), rows)


def _resources(reapers: Sequence[Replica]) -> str:
    rows = []
    for replica, life in _lives(reapers):
        third = max(1, len(life) // 3)
        growth = _growth(life)
        rows.append(
            (
                f"{replica.name} {life[0].pid}",
                str(len(life)),
                figure(life[0].rss, "MiB"),
                figure(life[-1].rss, "MiB"),
                NOTHING if growth is None else figure(growth, "MiB"),
                _cost(life[: third + 1]),
                _cost(life[-third - 1 :]),
            )
        )
    head = ("reaper, life", "rounds", "RSS first", "last", "growth", "CPU a cycle, first third", "last third")
    return table("Memory and CPU of every life of three rounds or more", head, rows)


def _lives(reapers: Sequence[Replica]) -> Iterator[tuple[Replica, list[Sample]]]:
    for replica in reapers:
        lives = defaultdict[int, list[Sample]](list)
        for sample in replica.samples:
            lives[sample.pid].append(sample)
        yield from ((replica, life) for life in lives.values() if len(life) > _WARM_UP)


def _growth(life: Sequence[Sample]) -> float | None:
    return life[-1].rss - life[_WARM_UP].rss if len(life) > _WARM_UP + 1 else None


def _cost(samples: Sequence[Sample]) -> str:
    cycles = samples[-1].cycles - samples[0].cycles
    return figure((samples[-1].cpu - samples[0].cpu) * 1_000 / cycles, "ms") if cycles else NOTHING


def _take_overs(world: World) -> str:
    gaps = defaultdict[str, list[float]](list)
    for loss in world.losses:
        heirs = [
            event.at
            for replica in world.reapers  # the lost one too: it may be back before a standby asks
            for event in replica.daemon.journal.named(events.LEADS, since=loss.at)
        ]
        if heirs:
            gaps[loss.how].append((min(heirs) - loss.at) / LEASE)
    rows = [
        (how, str(len(shares)), figure(100 * median(shares), "%"), figure(100 * max(shares), "%"))
        for how, shares in sorted(gaps.items())
    ]
    title = f"From the loss of a leader to the next one, as a share of the lease of {LEASE:g} s"
    return table(title, ("the leader was lost by", "times", "median", "max"), rows)


def _blows(blows: Counter[tuple[str, str]]) -> str:
    signals = sorted({number for number, _ in blows})
    rows = [(step.value, *(str(blows[number, step]) for number in signals)) for step in Step]
    return table("Signals to a reaper, by what it was doing", ("", *signals), rows)


def _in(each: Round, case: Case) -> bool:
    return each.began <= case.at < each.ended


def _when(done: Sequence[Round], case: Case) -> str:
    return next(
        (f"round {each.number} ({' + '.join(each.faults)})" for each in done if _in(each, case)),
        "between rounds",
    )


def shown(broken: Sequence[str]) -> str:
    """The violations, as many as a person reads."""
    more = len(broken) - _MOST_SHOWN
    return "\n".join([*broken[:_MOST_SHOWN], *([f"... and {more} more"] if more > 0 else [])])
