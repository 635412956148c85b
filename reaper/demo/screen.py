"""The output of the demo: a live view on a terminal or plain lines elsewhere, and the summary at the end."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from reaper.audit.events import INTENT, Event
from reaper.audit.reader import open_intents, read_events
from reaper.demo.state import PERMANENT, DemoEntry, DemoState, application_of
from reaper.demo.story import POLICY_FILE
from reaper.policy.plan import Outcome, Reap, Result, Spared, Verdict, longest_idle_first
from reaper.policy.protections import SELF
from reaper.policy.session import ACTIVE, IN_TRANSACTION, Session, Slots
from reaper.policy.text import plain
from reaper.policy.time import Instant, since, words
from reaper.service.cycle import Cycle

AUDIT_LOG: Final = "audit.jsonl"

_WIDTH: Final = 110
_FRAMES_PER_SECOND: Final = 8
_SHOWN_ABOVE: Final = ("", "policy")
"""Kinds of entries that are not repeated below the table."""
_PROTECTED, _NOT_DUE, _DUE, _TERMINATED = "protected", "not due", "due", "terminated"
_STYLES: Final = {_PROTECTED: "green", _NOT_DUE: "blue", _DUE: "yellow", _TERMINATED: "bold red"}
_KIND_STYLES: Final = {
    "step": "bold",
    "client": "blue",
    "server": "blue",
    "refused": "bold red",
    "connected": "bold green",
    "skipped": "green",
    "passed": "bold green",
    "failed": "bold red",
    "dry": "yellow",
    "terminated": "bold red",
}
_WOULD_TERMINATE: Final = "dry run: would terminate"
_BY_RESULT: Final = {
    Result.REHEARSED: (_DUE, _WOULD_TERMINATE),
    Result.TERMINATED: (_TERMINATED, _TERMINATED),
}
_BY_REASON: Final = {
    Spared.UNMATCHED: (_NOT_DUE, _NOT_DUE),
    Spared.REHEARSED: (_DUE, _WOULD_TERMINATE),
}
_TEMPORARY: Final = (Spared.PACE, Spared.FIRST_SIGHTING, Spared.BRAKE)
_NEXT: Final = (
    (f"reaper check -p {POLICY_FILE}", "is it correct; may the reaper read and terminate"),
    (f"reaper plan -p {POLICY_FILE}", "what it would terminate now, what not, and why"),
    (f"reaper run --dry-run -p {POLICY_FILE}", "the service as a dry run; nothing is terminated"),
)


class DemoScreen:
    """Shows the demo: as a live view, or with a line for each entry."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._live = live

    def add(self, entry: DemoEntry) -> None:
        """Print the entry, unless the live view shows it."""
        if not self._live:
            self.print([_entry(entry)])

    def live(self, state: DemoState) -> AbstractContextManager[object]:
        """Draw the state several times a second, during the block and from another thread."""
        if not self._live:
            return nullcontext()
        return Live(_View(state), console=self._console, screen=True, refresh_per_second=_FRAMES_PER_SECOND)

    def print(self, lines: Iterable[Text]) -> None:
        """Print lines that stay after the demo."""
        for line in lines:
            line.rstrip()
            self._console.print(line, soft_wrap=True)


class _View:
    """The state at this moment, cut to the terminal's width and height."""

    def __init__(self, state: DemoState) -> None:
        self._state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        width = min(options.max_width, _WIDTH)
        options = options.update(width=width, height=None, no_wrap=True, overflow="ellipsis")
        upper = Group(*self._upper(width, ascii_only=options.ascii_only))
        room = max(height - len(console.render_lines(upper, options)), 1)
        entries = [_entry(each) for each in self._state.entries if each.kind not in _SHOWN_ABOVE]
        yield from console.render(Group(upper, *entries[-room:]), options)

    def _upper(self, width: int, *, ascii_only: bool) -> Iterator[RenderableType]:
        used, free, rule = "#.-" if ascii_only else "■·─"
        state = self._state
        yield _title(state, width)
        yield Text(rule * width, style="dim")
        if not state.step:
            yield Text("A PostgreSQL of its own, and these policies:\n", style="bold")
            yield Syntax(state.policies, "yaml", theme="ansi_dark", background_color="default")
            return
        yield Text.assemble((f"{state.step:13}", "bold magenta"), (state.title, "bold"))
        yield Text(f"{'':13}{state.hint}\n")
        if state.cycle is not None:
            statuses = _statuses(state.cycle)
            yield _slots(state.cycle.snapshot.slots, statuses, used, free)
            yield _customer(state)
            yield _table(statuses, state)


class _SessionStatus(NamedTuple):
    session: Session
    group: str
    decision: str


def _statuses(cycle: Cycle) -> list[_SessionStatus]:
    """Return what the cycle decided about each session, the protected ones first."""
    outcomes = {reap.session.id: outcome for reap, outcome in cycle.settled}
    statuses = [
        _SessionStatus(verdict.session, *_decision(verdict, outcomes.get(verdict.session.id)))
        for verdict in cycle.plan.verdicts
    ]
    order = list(_STYLES)
    return sorted(statuses, key=lambda each: (order.index(each.group), application_of(each.session)))


def _decision(verdict: Verdict, outcome: Outcome | None) -> tuple[str, str]:
    """Return the group of a session and the decision in words."""
    if isinstance(verdict, Reap):
        result = outcome.result if outcome else Result.REHEARSED
        return _BY_RESULT.get(result, (_NOT_DUE, result.value))
    if verdict.protection == SELF:
        return _NOT_DUE, "the reaper itself"
    if verdict.by in _BY_REASON:
        return _BY_REASON[verdict.by]
    if verdict.by in PERMANENT:
        return _PROTECTED, verdict.reason
    return _DUE if verdict.by in _TEMPORARY else _NOT_DUE, verdict.reason


def _title(state: DemoState, width: int) -> Text:
    mode = f"mode: {state.mode}" if state.mode else ""
    minutes, seconds = divmod(int(state.seconds), 60)
    style = "bold red" if state.mode == "enforce" else "bold yellow"
    right = Text.assemble((mode, style), f"   {state.server}   {minutes}:{seconds:02}")
    left = Text("reaper demo", style="bold")
    left.append(" " * max(width - len(left) - len(right), 1))
    return Text.assemble(left, right)


def _slots(slots: Slots, statuses: list[_SessionStatus], used: str, free: str) -> Text:
    full = slots.used >= slots.usable
    return Text.assemble(
        _label("slots"),
        *((f"{used} ", _STYLES[each.group]) for each in statuses),
        (f"{free} " * max(slots.total - len(statuses), 0), "dim"),
        (f" {slots.used} of {slots.usable} used\n", "bold red" if full else "bold"),
        _label(""),
        *(part for group, style in _STYLES.items() for part in ((f"{used} ", style), (f"{group}   ", "dim"))),
        (f"{free} free", "dim"),
    )


def _customer(state: DemoState) -> Text:
    if not state.attempts:
        return Text.assemble(_label("customer"), "\n\n")
    answer = (state.refusal, "bold red") if state.refusal else ("connects", "bold green")
    shares = f"refused {state.refused(after=False)} times"
    if state.attempts[True]:
        shares += f", since the first termination {state.refused(after=True)}"
    return Text.assemble(_label("customer"), answer, "\n", _label(""), (f"{shares}\n", "dim"))


def _table(statuses: list[_SessionStatus], state: DemoState) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("application", min_width=12)
    table.add_column("#", justify="right", min_width=2)
    table.add_column("longest", min_width=18)
    table.add_column("decision", no_wrap=True)
    for application in state.applications:
        members = [each for each in statuses if application_of(each.session) == application]
        if application != "customer" and state.cycle:
            table.add_row(*_row(application, members, state.cycle.snapshot.at))
    return table


def _row(application: str, members: list[_SessionStatus], now: Instant) -> tuple[Text, ...]:
    if not members:
        return Text(plain(application), "dim"), Text(), Text(), Text("gone", "dim")
    last = members[-1]  # of the group that is closest to termination
    decision, count = last.decision, sum(each.decision == last.decision for each in members)
    if last.group in {_DUE, _TERMINATED} and len(members) > 1 and decision in {_WOULD_TERMINATE, _TERMINATED}:
        decision = f"{decision} {count} of {len(members)}"
    oldest = min((each.session for each in members), key=longest_idle_first)
    style = _STYLES[last.group]
    return (
        Text(plain(application)),
        Text(str(len(members)), "bold"),
        Text(_state(oldest, now)),
        Text(plain(decision), style),
    )


def _state(session: Session, now: Instant) -> str:
    if session.state == ACTIVE:
        return ACTIVE
    in_transaction = session.state == IN_TRANSACTION
    age = since(session.xact_start if in_transaction else session.state_change, now)
    state = "in transaction" if in_transaction else session.state or "unknown"
    return state if age is None else f"{state} {words(age)}"


def _entry(entry: DemoEntry) -> Text:
    style = _KIND_STYLES.get(entry.kind.partition(" ")[0], "default")
    return Text.assemble((f"{entry.after:5.1f}s  ", "dim"), (f"{entry.kind:11}", style), entry.text)


def _label(text: str) -> tuple[str, str]:
    return f"{text:10}", "dim"


def summary(state: DemoState, audit_log: Path, kept: Path | None) -> Iterator[Text]:
    """Yield the lines of the summary: what the demo has shown, in numbers, and what to do next."""
    yield _heading(f"Terminated: {state.count(Result.TERMINATED)} sessions")
    for policy in sorted({policy for policy, result in state.results if result is Result.TERMINATED}):
        terminated, expected = (state.count(each, policy) for each in (Result.TERMINATED, Result.REHEARSED))
        yield _line(f"{policy:22}", f"{terminated:>2}, the dry run matched {expected}", "red")
    yield _line("", "anna is back in psql, and types COMMIT:")
    yield _line("", state.commit_answer)
    yield _heading("Not terminated: the clients' own checks, and the reason")
    for check in state.checks:
        report = check.report if check.passed else f"FAILED: {check.report}"
        line = _line(check.application, f"{report:23} ", "green" if check.passed else "bold red")
        yield line.append(
            state.skipped.get(check.application, "never idle for long: no policy matches"), "dim"
        )
    yield _heading("The customer")
    yield _line("before", f"{state.refused(after=False)} attempts refused: {state.last_refusal}", "red")
    yield _line("after", f"{state.refused(after=True)} attempts refused", "green")
    yield _heading("The audit log")
    events = list(read_events(audit_log))
    intents = sum(isinstance(event, Event) and event.name == INTENT for event in events)
    without = len(open_intents(events))
    yield _line(AUDIT_LOG, f"{intents} intents, each written before the signal; {without} without an outcome")
    yield _line(
        "",
        f"kept in {kept}" if kept else "removed with the server; --keep keeps it, the policies and the log",
    )
    yield _heading("What next, with your own policies")
    for command, answer in _NEXT:
        yield _line(f"{command:37}", answer, "bold")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _line(name: str, text: str, style: str = "dim") -> Text:
    return Text.assemble((f"  {name:11} ", style), (text, "" if name else "dim"))
