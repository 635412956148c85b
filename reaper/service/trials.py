"""What the rehearsals of this life have shown, for whoever asks the service: the newest acts, bounded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from reaper.policy.fates import Fated, Key
from reaper.policy.regret import Trial

MOST_TRIALS: Final = 2_000
"""In about one megabyte; the record has all of them."""

_MOST_ASKED: Final = 5_000

Acts = Mapping[tuple[str, Key], Trial]


class Trials:
    """The newest acts of all servers that something has become of."""

    def __init__(self, most: int = MOST_TRIALS) -> None:
        self._most = most
        self._known: dict[tuple[str, Key], Trial] = {}
        self.forgotten = 0
        """How many acts there was no room for any more."""

    def note(self, server: str, fated: Fated) -> None:
        """Something has become of one; what is told of it later takes the place of this."""
        key, trial = (server, fated.watched.key), Trial.of(fated, server)
        known = self._known.pop(key, trial)
        # A loop whose place was taken tells at its end how things stood before.
        self._known[key] = known if known.at + known.after > trial.at + trial.after else trial
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
            self.forgotten += 1

    def beside(self, watched: Iterable[Acts]) -> "Standings":
        """These, and those that are still watched as they stand now."""
        acts, open_ = self._known.copy(), 0
        for each in watched:
            acts |= each
            open_ += len(each)
        return Standings(acts=acts, watched=open_, forgotten=self.forgotten)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """Acts by their keys, at one moment."""

    acts: Acts
    watched: int
    forgotten: int

    def newest(self) -> list[Trial]:
        """So many as can be judged while somebody waits."""
        return list(islice(reversed(list(self.acts.values())), _MOST_ASKED))
