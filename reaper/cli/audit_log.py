"""The record of `run` and `once`: where it goes."""

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

from reaper.audit.events import BRAKED, LEFT_ALONE, OUTCOME
from reaper.audit.file import FileSink
from reaper.audit.ledger import Ledger
from reaper.audit.recovery import settle_open_intents
from reaper.audit.sinks import AuditLogFailed, Finding, Sink, StreamSink
from reaper.cli.errors import Misconfigured
from reaper.policy.text import plain
from reaper.service.reporter import ChainHeadLog
from reaper.telemetry import events
from reaper.telemetry.log import Log

_STYLES: Final = {
    "terminated": "bold red",
    "cancelled": "bold red",
    "rehearsed": "cyan",
    "denied": "bold yellow",
    "unknown": "bold yellow",
    "signalled": "bold yellow",
}


class TerminalSink:
    """The same lines for a person who watches: intents are not shown, outcomes are."""

    name = "terminal"
    head = None

    def __init__(self) -> None:
        self._console = Console()

    def ready(self) -> Sequence[Finding]:
        """A terminal has nothing to tell."""
        return ()

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:  # noqa: ARG002 (a terminal keeps nothing)
        """Show what a person wants to see of these lines."""
        for line in lines:
            event = json.loads(line)
            if event["event"] == OUTCOME:
                self._console.print(_outcome(event), soft_wrap=True)
            elif event["event"] in {BRAKED, LEFT_ALONE}:
                self._console.print(Text(plain(f"{event['policy']}: {event['reason']}"), style="bold red"))

    def reopen(self) -> None:
        """A terminal cannot be rotated."""

    def close(self) -> None:
        """A terminal stays."""


def _outcome(event: dict[str, object]) -> Text:
    outcome = str(event["outcome"])
    whose = f"{event['role']}@{event['database']} {event['application'] or '(unnamed)'}"
    who = f"{whose} from {event['client'] or 'local'}"
    # The time of this place, as in the log lines among which it stands.
    text = Text(f"{datetime.fromisoformat(str(event['time'])).astimezone():%H:%M:%S} ")
    text.append(f"{outcome:10}", style=_STYLES.get(outcome, "dim"))
    text.append(plain(f" pid {event['pid']} {who}: {event['state']}, {event['reason']} "))
    text.append(plain(f"[{event['server']}: {event['policy']}]"), style="dim")
    return text


STDOUT: Final = "-"


@contextmanager
def opened_ledger(targets: Sequence[str], log: Log) -> Iterator[Ledger]:
    """Open every sink before anything else happens, and settle what an earlier life left open."""
    targets = tuple(dict.fromkeys(targets))
    ledger = Ledger(
        [_sink(target) for target in targets], clock=lambda: datetime.now(UTC), run=uuid.uuid4().hex
    )
    try:
        ledger.open()
        if targets == (STDOUT,) and sys.stdout.isatty():
            log.warning(
                events.AUDIT_NOT_KEPT, why="it is shown here and nowhere kept", keep="--audit-log FILE"
            )
        for target in targets:
            if target != STDOUT and (count := settle_open_intents(Path(target), ledger)):
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
    if not sys.stdout.isatty():
        return StreamSink(sys.stdout.fileno())

    return TerminalSink()
