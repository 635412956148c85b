"""How a person watches the record on a terminal."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from reaper.record.events import BRAKED, LEFT_ALONE, OUTCOME
from reaper.record.writer import Finding
from reaper.telemetry.plain import plain

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
