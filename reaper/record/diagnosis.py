"""Why a line does not follow the one before it, told from the lines around."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from reaper.record.damage import Damage, Kind, Place
from reaper.record.events import PREV, TRUNCATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What has to be known of a whole line."""

    place: Place
    digest: str
    event: str | None
    run: str | None
    seq: int | None
    time: str | None
    detail: str | None
    linked: bool
    """Whether it carries a digest at all."""
    prev: str | None

    @classmethod
    def of(cls, place: Place, data: bytes, fields: Mapping[str, object]) -> Self:
        """From the line as it stands there."""

        def text(name: str) -> str | None:
            value = fields.get(name)
            return value if isinstance(value, str) else None

        seq = fields.get("seq")
        return cls(
            place=place,
            digest=sha256(data).hexdigest(),
            event=text("event"),
            run=text("run"),
            seq=seq if isinstance(seq, int) else None,
            time=text("time"),
            detail=text("detail"),
            linked=PREV in fields,
            prev=text(PREV),
        )


@dataclass(slots=True, kw_only=True)
class Loose:
    """Lines one behind the other that are not whole."""

    first: Place
    why: str
    looks_torn: bool
    """Whether they may be the beginnings of lines of ours."""
    count: int = 1

    @property
    def what(self) -> str:
        """`it is not JSON, so probably torn`, or of how many lines that is true."""
        return self.why if self.count == 1 else f"{self.count} lines from here on: {self.why}"

    def damage(self, why: str = "") -> Damage:
        """These lines as something that should not be there."""
        kind = Kind.TORN if self.looks_torn else Kind.FOREIGN
        return Damage(kind=kind, place=self.first, sentence="; ".join(filter(None, (self.what, why))))


def diagnosis(
    line: Seen, *, last: Seen, recent: Iterable[Seen], loose: Loose | None, found: str | None
) -> Damage:
    """What happened between the last whole line and this one, which does not follow it."""
    known = {each.digest: each for each in recent}
    kind, place, sentence = _unlike(line, known) or _changed(line, last, loose)
    return Damage(kind=kind, place=place, sentence=sentence, expected=line.prev, found=found)


_Told = tuple[Kind, Place, str]


def _unlike(line: Seen, known: Mapping[str, Seen]) -> _Told | None:
    if twin := known.get(line.digest):
        return Kind.REPEATED, line.place, f"the same line stands at {twin.place}"
    if line.prev is None:
        why = f" ({line.detail})" if line.detail else ""
        return Kind.BROKEN_OFF, line.place, f"a new chain begins here, although lines stand before it{why}"
    if line.event == TRUNCATED:
        why = f"its writer found that somebody had shortened the file {line.detail}"
        return Kind.MISSING, line.place, f"lines before this one are missing: {why}"
    if before := known.get(line.prev):
        why = "what stands between them was inserted, or moved here"
        return Kind.INSERTED, line.place, f"this line follows {before.place}: {why}"
    return None


def _changed(line: Seen, last: Seen, loose: Loose | None) -> _Told:
    if loose:
        why = f"this is not what {line.place} follows, so it was changed, and not torn by a crash"
        return Kind.CHANGED, loose.first, f"{loose.what}; {why}"
    if line.run == last.run and line.seq is not None and last.seq is not None:
        gap = line.seq - last.seq - 1
        if gap == 0:
            return Kind.CHANGED, last.place, f"{line.place} follows this line as it was before it was changed"
        if gap > 0:
            lines = "1 line is" if gap == 1 else f"{gap} lines are"
            why = f"by their numbers {lines} missing between {last.place} and this one"
            return Kind.MISSING, line.place, why
    why = f"{last.place} was changed, or lines between them are missing"
    return Kind.MISSING, line.place, f"this line follows one that is not here: {why}"
