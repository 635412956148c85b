"""The audit log of `run` and `once`: its sinks, and the terminal as one of them."""

import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from reaper.audit.events import GROUP_PAUSED, OUTCOME, SAFETY_LIMIT
from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.audit.recovery import close_open_intents
from reaper.audit.sinks import AuditLogFailed, Notice, Sink, StreamSink
from reaper.cli.errors import Misconfigured
from reaper.policy.text import printable
from reaper.service.reporter import ChainHeadLog
from reaper.telemetry import events
from reaper.telemetry.log import Log

STDOUT: Final = "-"

_STYLES: Final = {
    "terminated": "bold red",
    "cancelled": "bold red",
    "dry-run": "cyan",
    "denied": "bold yellow",
    "unknown": "bold yellow",
    "signalled": "bold yellow",
}


class TerminalSink:
    """Shows outcomes to a person instead of JSON."""

    name = "terminal"
    head = None

    def __init__(self) -> None:
        self._console = Console()

    def prepare(self) -> Sequence[Notice]:
        """Return nothing: a terminal is always ready."""
        return ()

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:  # noqa: ARG002 (nothing is kept)
        """Show what a person needs to see of these lines."""
        for line in lines:
            event = json.loads(line)
            if event["event"] == OUTCOME:
                self._console.print(_outcome(event), soft_wrap=True)
            elif event["event"] in {SAFETY_LIMIT, GROUP_PAUSED}:
                self._console.print(
                    Text(printable(f"{event['policy']}: {event['reason']}"), style="bold red")
                )

    def reopen(self) -> None:
        """Do nothing: a terminal cannot be rotated."""

    def close(self) -> None:
        """Do nothing: the terminal stays open."""


def _outcome(event: dict[str, object]) -> Text:
    outcome = str(event["outcome"])
    application = event["application"] or "(unnamed)"
    session = f"{event['role']}@{event['database']} {application} from {event['client'] or 'local'}"
    # Local time, as in the log lines around it.
    text = Text(f"{datetime.fromisoformat(str(event['time'])).astimezone():%H:%M:%S} ")
    text.append(f"{outcome:10}", style=_STYLES.get(outcome, "dim"))
    text.append(printable(f" pid {event['pid']} {session}: {event['state']}, {event['reason']} "))
    text.append(printable(f"[{event['server']}: {event['policy']}]"), style="dim")
    return text


@contextmanager
def opened_ledger(targets: Sequence[str], log: Log) -> Iterator[Ledger]:
    """Open every sink before anything else happens, and close the intents that an earlier run left open."""
    targets = tuple(dict.fromkeys(targets))
    sinks = [_sink(target) for target in targets]
    ledger = Ledger(sinks, clock=lambda: datetime.now(UTC), run=uuid.uuid4().hex)
    try:
        ledger.open()
        if targets == (STDOUT,) and sys.stdout.isatty():
            log.warning(events.AUDIT_NOT_KEPT, why="it is shown here and not stored", keep="--audit-log FILE")
        for target in targets:
            if target != STDOUT and (count := close_open_intents(Path(target), ledger)):
                log.warning(events.AUDIT_RECOVERED, file=target, open_intents=count, settled_as="unknown")
        heads = ChainHeadLog(ledger, log)
        heads.log_new()
        try:
            yield ledger
        finally:
            ledger.close()
            heads.log_new()
    except AuditLogFailed as failed:
        raise Misconfigured(str(failed)) from None


def _sink(target: str) -> Sink:
    if target != STDOUT:
        return FileSink(Path(target))
    return TerminalSink() if sys.stdout.isatty() else StreamSink(sys.stdout.fileno())
