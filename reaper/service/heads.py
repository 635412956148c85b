"""The head of the record, told in the log: kept by somebody else, it shows later that nothing was taken."""

from reaper.record.ledger import Ledger
from reaper.telemetry import events
from reaper.telemetry.log import Log


class Heads:
    """Tells where the chain of each sink stands, each head once."""

    def __init__(self, ledger: Ledger, log: Log) -> None:
        self._ledger = ledger
        self._log = log
        self._told = dict[str, str]()

    def tell(self) -> None:
        """Tell those that have moved since."""
        for file, digest in self._ledger.heads():
            if self._told.get(file) != digest:
                self._told[file] = digest
                self._log.info(events.RECORD_HEAD, file=file, digest=digest)
