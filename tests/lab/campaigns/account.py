"""What the record says of everybody, and whether the server says the same."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from reaper.audit.events import INTENT, OUTCOME, Event
from reaper.audit.reader import Torn, read_events

_UNCERTAIN: Final = frozenset({"unknown", "signalled"})


@dataclass(slots=True)
class Account:
    """Every session by its application name, which is never used again."""

    intended: set[str] = field(default_factory=set)
    terminated: set[str] = field(default_factory=set)
    uncertain: set[str] = field(default_factory=set)
    results: Counter[str] = field(default_factory=Counter)
    runs: dict[str, int] = field(default_factory=dict)
    """Of every life the number of its last line."""
    missing: int = 0
    """Lines that did not arrive, by the numbers of those that did."""
    intents: int = 0
    torn: int = 0
    _open: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, files: Sequence[Path]) -> Self:
        """The record in these files, the oldest first."""
        account = cls()
        for file in files:
            account.read(read_events(file))
        return account

    def read(self, events: Iterable[Event | Torn]) -> None:
        """Go on with these events."""
        for event in events:
            if isinstance(event, Torn):
                self.torn += 1
                continue
            self._number(event)
            if event.name == INTENT:
                self.intents += 1
                self.intended.add(str(event.text("application")))
                self._open.add(str(event.text("intent")))
            elif event.name == OUTCOME:
                self._settle(event)

    @property
    def open(self) -> int:
        """How many intents have no outcome."""
        return len(self._open)

    def disagreements(self, died: set[str]) -> list[str]:
        """Everything in which the record and the server's log of the terminated do not agree, in words."""
        found = {
            "terminated without an intent": died - self.intended,
            "terminated by the log, and not by the record": died - self.terminated - self.uncertain,
            "terminated by the record, and not by the log": self.terminated - died,
        }
        told = [f"{len(names)} {what}: {sorted(names)[:5]}" for what, names in found.items() if names]
        return [*told, *([f"{self.open} intents without an outcome"] if self.open else [])]

    def counted(self, died: set[str]) -> Counter[str]:
        """The figures, for people."""
        return Counter(
            {
                "sessions terminated, by the server's log": len(died),
                "of these without an intent": len(died - self.intended),
                "of these recorded as terminated": len(died & self.terminated),
                "of these recorded as unknown or signalled": len((died & self.uncertain) - self.terminated),
                "intents": self.intents,
                "intents without an outcome": self.open,
                "lines that are missing": self.missing,
                "spared by the last look": self.results["woke"],
                "torn lines": self.torn,
            }
        )

    def _number(self, event: Event) -> None:
        run, seq = str(event.text("run")), event.fields["seq"]
        assert isinstance(seq, int)
        self.missing += seq - self.runs.get(run, 0) - 1
        self.runs[run] = seq

    def _settle(self, event: Event) -> None:
        who, outcome = str(event.text("application")), str(event.text("outcome"))
        self.results[outcome] += 1
        self._open.discard(str(event.text("intent")))
        if outcome == "terminated":
            self.terminated.add(who)
        elif outcome in _UNCERTAIN:
            self.uncertain.add(who)
