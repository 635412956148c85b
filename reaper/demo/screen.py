"""The output of the demo: a live view on a terminal or plain lines elsewhere, and the summary at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from reaper.audit.events import INTENT, Event
from reaper.audit.reader import open_intents, read_events
from reaper.demo.state import PERMANENT, DemoEntry, DemoState, application_of
from reaper.policy.plan import Decision, Result, Skip, SkipReason, longest_idle_first
from reaper.policy.session import ACTIVE, IN_TRANSACTION, Session, Slots
from reaper.policy.text import printable
from reaper.policy.time import Timestamp, since, words
from reaper.service.cycle import Cycle

AUDIT_LOG: Final = "audit.jsonl"

_WIDTH: Final = 110
_ORDER = _PROTECTED, _NOT_DUE, _DUE, _TERMINATED = "protected", "not due", "due", "terminated"
_STYLES: Final = {_PROTECTED: "green", _NOT_DUE: "blue", _DUE: "yellow", _TERMINATED: "bold red"}
_GROUPS: Final = {
    **dict.fromkeys(PERMANENT, _PROTECTED),
    **dict.fromkeys(
        (SkipReason.MAX_PER_CYCLE, SkipReason.SAFETY_LIMIT, SkipReason.FIRST_SIGHTING, SkipReason.DRY_RUN),
        _DUE,
    ),
}
_DECISIONS: Final = {SkipReason.UNMATCHED: _NOT_DUE, SkipReason.DRY_RUN: "dry run: would terminate"}
_NEXT: Final = {
    "check -c policies.yaml": "is it correct; may the reaper read and terminate",
    "plan -c policies.yaml": "what it would terminate now, what not, and why",
    "run --dry-run -c policies.yaml": "the service as a dry run; terminates nothing",
}
_GOOD: Final = ("connected", "passed")
_BAD: Final = ("refused", "failed", "terminated")


class DemoView:
    """The state at this moment, cut to the terminal's width and height."""

    def __init__(self, state: DemoState, policies: str) -> None:
        self._state = state
        self.policies = policies

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the present state above the newest entries."""
        height = options.height or console.height
        width = min(options.max_width, _WIDTH)
        options = options.update(width=width, height=None, no_wrap=True, overflow="ellipsis")
        upper = Group(*self._upper(width, ascii_only=options.ascii_only))
        room = max(height - len(console.render_lines(upper, options)), 1)
        entries = [entry_line(each) for each in self._state.entries if each.kind]
        yield from console.render(Group(upper, *entries[-room:]), options)

    def _upper(self, width: int, *, ascii_only: bool) -> Iterator[RenderableType]:
        used, free, rule = "#.-" if ascii_only else "■·─"
        state = self._state
        yield _title(state, width)
        yield Text(rule * width, style="dim")
        if not state.step:
            yield Text("A PostgreSQL of its own, and these policies:\n", style="bold")
            yield Syntax(self.policies, "yaml", theme="ansi_dark", background_color="default")
            return
        yield Text.assemble((f"{state.step:13}", "bold magenta"), (state.title, "bold"))
        yield Text(f"{'':13}{state.hint}\n")
        if state.cycle is not None:
            statuses = _statuses(state.cycle)
            yield _slots(state.cycle.snapshot.slots, statuses, used, free)
            yield _customer(state) if state.attempts else Text("\n\n")
            yield Group(_table(statuses, state), Text())


class _SessionStatus(NamedTuple):
    session: Session
    group: str
    decision: str


def _statuses(cycle: Cycle) -> list[_SessionStatus]:
    """Return what the cycle decided about each session, the protected ones first."""
    outcomes = {candidate.session.id: outcome.result for candidate, outcome in cycle.settled}
    statuses = [_status(decision, outcomes.get(decision.session.id)) for decision in cycle.plan.decisions]
    return sorted(statuses, key=lambda each: (_ORDER.index(each.group), application_of(each.session)))


def _status(decision: Decision, result: Result | None) -> _SessionStatus:
    if isinstance(decision, Skip):
        group, said = _GROUPS.get(decision.by, _NOT_DUE), _DECISIONS.get(decision.by, decision.reason)
    elif result is None or result is Result.DRY_RUN:
        group, said = _DUE, _DECISIONS[SkipReason.DRY_RUN]
    else:
        group, said = _TERMINATED if result is Result.TERMINATED else _NOT_DUE, result.value
    return _SessionStatus(decision.session, group, said)


def _title(state: DemoState, width: int) -> Text:
    mode = f"mode: {state.mode}" if state.mode else ""
    minutes, seconds = divmod(int(state.seconds), 60)
    style = "bold red" if state.mode == "enforce" else "bold yellow"
    right = Text.assemble((mode, style), f"   {state.server}   {minutes}:{seconds:02}")
    left = Text("reaper demo", style="bold")
    left.append(" " * max(width - len(left) - len(right), 1))
    return Text.assemble(left, right)


def _slots(slots: Slots, statuses: list[_SessionStatus], used: str, free: str) -> Text:
    return Text.assemble(
        ("slots     ", "dim"),
        *((f"{used} ", _STYLES[each.group]) for each in statuses),
        (f"{free} " * max(slots.total - len(statuses), 0), "dim"),
        (f" {slots.used} of {slots.usable} used\n", "bold red" if slots.used >= slots.usable else "bold"),
        " " * 10,
        *(part for group, style in _STYLES.items() for part in ((f"{used} ", style), (f"{group}   ", "dim"))),
        (f"{free} free", "dim"),
    )


def _customer(state: DemoState) -> Text:
    answer = (state.refusal, "bold red") if state.refusal else ("connects", "bold green")
    shares = f"refused {state.refused(after=False)} times"
    if state.attempts[True]:
        shares += f", since the first termination {state.refused(after=True)}"
    return Text.assemble(("customer  ", "dim"), answer, "\n", " " * 10, (f"{shares}\n", "dim"))


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


def _row(application: str, members: list[_SessionStatus], now: Timestamp) -> tuple[Text, ...]:
    if not members:
        return Text(printable(application), "dim"), Text(), Text(), Text("gone", "dim")
    _, group, decision = members[-1]  # of the group that is closest to termination
    if len(members) > 1 and decision in {*_DECISIONS.values(), _TERMINATED} - {_NOT_DUE}:
        decision += f" {sum(each.decision == decision for each in members)} of {len(members)}"
    longest = min((each.session for each in members), key=longest_idle_first)
    cells = (printable(application), ""), (str(len(members)), "bold"), (_state(longest, now), "")
    return (*(Text(*cell) for cell in cells), Text(printable(decision), _STYLES[group]))


def _state(session: Session, now: Timestamp) -> str:
    if session.state == ACTIVE:
        return ACTIVE
    in_transaction = session.state == IN_TRANSACTION
    age = since(session.xact_start if in_transaction else session.state_change, now)
    state = "in transaction" if in_transaction else session.state or "unknown"
    return state if age is None else f"{state} {words(age)}"


def entry_line(entry: DemoEntry) -> Text:
    """Return the line of an entry."""
    style = "bold red" if entry.kind in _BAD else "bold green" if entry.kind in _GOOD else "blue"
    line = Text.assemble((f"{entry.after:5.1f}s  ", "dim"), (f"{entry.kind:11}", style), entry.text)
    line.rstrip()
    return line


def summary(state: DemoState, audit_log: Path, kept: Path | None) -> Iterator[Text]:
    """Yield the lines of the summary: what the demo has shown, in numbers, and what to do next."""
    yield _heading(f"Terminated: {state.count(Result.TERMINATED)} sessions")
    for policy in sorted({policy for policy, result in state.results if result is Result.TERMINATED}):
        terminated, expected = (state.count(each, policy) for each in (Result.TERMINATED, Result.DRY_RUN))
        yield _line(f"{policy:22}", f"{terminated:>2}, the dry run matched {expected}", "red")
    yield _line("", "anna is back in psql, and types COMMIT:")
    yield _line("", state.commit_answer)
    yield _heading("Not terminated: the clients' own checks, and the reason")
    for application, (passed, report) in state.checks.items():
        result = report if passed else f"FAILED: {report}"
        line = _line(application, f"{result:23} ", "green" if passed else "bold red")
        reason = state.skipped.get(application, "never idle for long: no policy matches")
        yield line.append(reason, "dim")
    yield _heading("The customer")
    yield _line("before", f"{state.refused(after=False)} attempts refused: {state.last_refusal}", "red")
    yield _line("after", f"{state.refused(after=True)} attempts refused", "green")
    yield _heading("The audit log")
    events = list(read_events(audit_log))
    intents = sum(isinstance(event, Event) and event.name == INTENT for event in events)
    without = len(open_intents(events))
    yield _line(AUDIT_LOG, f"{intents} intents, each written before the signal; {without} without an outcome")
    removed = "removed with the server; --keep keeps it, the policies and the log"
    yield _line("", f"kept in {kept}" if kept else removed)
    yield _heading("What next, with your own policies")
    for command, answer in _NEXT.items():
        yield _line(f"reaper {command:30}", answer, "bold")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _line(name: str, text: str, style: str = "dim") -> Text:
    return Text.assemble((f"  {name:11} ", style), (text, "" if name else "dim"))
