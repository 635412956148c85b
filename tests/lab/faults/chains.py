"""What `reaper audit verify` finds in the records of a campaign, beside what the campaign did to them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .replica import Replica

_ANSWERED: Final = (0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The record of one reaper."""

    name: str
    lines: int
    """How many are in the chain."""
    cuts: int
    """How often the campaign had cut something off its end."""
    told: int
    """Damages that the record itself tells of, as those of a crash."""
    untold: Sequence[str]
    """The others, in a sentence each."""

    @property
    def wrong(self) -> Sequence[str]:
        """What neither the record nor the campaign accounts for; or that it missed what was done."""
        if self.cuts and not self.untold:
            return [f"verify has missed that something was cut off {self.cuts} times"]
        return self.untold[: len(self.untold) - self.cuts] if len(self.untold) > self.cuts else ()


async def verified(replicas: Sequence[Replica]) -> list[Verified]:
    """Ask the real command about each record that there is."""
    there = [replica for replica in replicas if replica.record.exists()]
    return [await asyncio.to_thread(_verified, replica) for replica in there]


def _verified(replica: Replica) -> Verified:
    done = replica.daemon.ask("audit", "verify", str(replica.record), "--output", "json")
    if done.code not in _ANSWERED:
        sentence = f"verify ended with {done.code}: {done.err}"
        return Verified(name=replica.name, lines=0, cuts=0, told=0, untold=[sentence])
    return found_in(done.document, name=replica.name, cuts=replica.cuts)


def found_in(document: Mapping[str, Any], *, name: str, cuts: int) -> Verified:
    """What it answered."""
    damages = document["damages"]
    untold = [
        f"{each['file']}:{each['line']}: {each['kind']}: {each['sentence']}"
        for each in damages
        if not each["explained"]
    ]
    return Verified(
        name=name,
        lines=sum(record["lines"] for record in document["records"]),
        cuts=cuts,
        told=len(damages) - len(untold),
        untold=[*untold, *["one more"] * document["more_damages"]],
    )
