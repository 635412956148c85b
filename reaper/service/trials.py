"""What the rehearsals of this life have shown, for whoever asks the service: the newest acts, bounded."""

from typing import Final

from reaper.policy.fates import Fated, Key
from reaper.policy.regret import Trial

MOST_TRIALS: Final = 2_000
"""In one megabyte; the record has all of them."""


class Trials:
    """The newest acts of all servers that something has become of."""

    def __init__(self, most: int = MOST_TRIALS) -> None:
        self._most = most
        self._known: dict[tuple[str, Key], Trial] = {}
        self.forgotten = 0
        """How many acts there was no room for any more."""

    def note(self, server: str, fated: Fated) -> None:
        """Something has become of one; what is told of it later takes the place of this."""
        key = server, fated.watched.key
        self._known.pop(key, None)
        self._known[key] = Trial.of(fated, server)
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
            self.forgotten += 1

    @property
    def known(self) -> dict[tuple[str, Key], Trial]:
        """Each act by its key."""
        return self._known.copy()
