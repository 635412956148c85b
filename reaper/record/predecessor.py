"""What stood before an empty file: the chain goes on from there."""

import os
from pathlib import Path

from reaper.record.chain import Chain
from reaper.record.ending import chain_of_copies
from reaper.record.rotation import rotated_copies
from reaper.record.walk import Damaged


class Predecessor:
    """The file that was left last, in this life, or else the newest rotated copy beside the path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left: os.stat_result | None = None
        self._chain = Chain()
        self.trouble: str | None = None
        """Why the chain had to begin anew, when it had to."""

    def leave(self, status: os.stat_result, chain: Chain) -> None:
        """Remember the file that is let go of, and the chain up to its end."""
        self._left, self._chain = status, chain

    def chain(self) -> Chain:
        """The chain up to the beginning of the file at the path."""
        self.trouble = None
        try:
            copies = rotated_copies(self._path)
            if self._left is not None and not (copies and _is_later(copies[-1].stat(), self._left)):
                return self._chain.copy()
            return chain_of_copies(copies)
        except BlockingIOError:
            raise  # somebody keeps it locked: that is a matter of time
        except (OSError, Damaged) as error:
            why = getattr(error, "strerror", None) or error
            self.trouble = f"the chain begins anew, for what was rotated cannot be read: {why}"
            return self._chain.copy()


def _is_later(copy: os.stat_result, left: os.stat_result) -> bool:
    """Whether another reaper had begun, and somebody rotated, one more since we left ours."""
    return not os.path.samestat(copy, left) and copy.st_mtime_ns > left.st_mtime_ns
