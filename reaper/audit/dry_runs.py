"""The dry-run outcomes in an audit log: each session once, with what happened to it afterwards.

A session that a restart or another `reaper once` finds unchanged counts once. Without a later entry, it is
still watched if the run that logged it last is the newest one of its server; otherwise it is unknown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from reaper.audit.events import DRY_RUN_OUTCOME, GROUP_PAUSED, OUTCOME, SAFETY_LIMIT, Event
from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.insight.dryrun.regret import DryRun
from reaper.policy.plan import Result
from reaper.policy.rules import Mode
from reaper.policy.session import ACTIVE, Identity
from reaper.policy.time import Duration, Timestamp, from_datetime, parse_time

_MAX_IDLE_SECONDS: Final = 1e10
_OUTCOMES: Final[Mapping[str | None, DryRunOutcome]] = {outcome.value: outcome for outcome in DryRunOutcome}
_GROUP: Final = ("server", "policy", *Identity._fields)


class _LoggedKey(NamedTuple):
    server: str
    policy: str
    rules: str
    backend_start: str | None
    state_change: str | None
    pid: int | None


@dataclass(frozen=True, slots=True)
class _LoggedDryRun:
    """One dry run of a session, as far as the entries so far tell."""

    identity: Identity
    at: Timestamp
    idle: Duration
    active: bool
    run: str | None
    outcome: DryRunOutcome | None = None
    until: Timestamp = Timestamp(0)  # noqa: RUF009 (a number)


class DryRunLog:
    """Collects the dry runs of an audit log; its files may be in any order."""

    def __init__(self, *, since: datetime | None = None) -> None:
        self._since = since
        self._dry_runs: dict[_LoggedKey, _LoggedDryRun] = {}
        self._newest: dict[str, tuple[datetime, str | None]] = {}
        self._groups: dict[tuple[str | None, ...], Event] = {}
        self._stopped: dict[tuple[str | None, str | None], Event] = {}

    def note(self, event: Event) -> None:
        """Add an event of the audit log."""
        server, run = event.text("server"), event.text("run")
        # Every entry of a run shows that it works for this server, not only those of dry runs.
        if server and (server not in self._newest or self._newest[server][0] <= event.time):
            self._newest[server] = event.time, run
        if self._since and event.time < self._since:
            return
        if event.name == GROUP_PAUSED:
            self._groups[tuple(map(event.text, _GROUP))] = event
        if event.name == SAFETY_LIMIT and (event.text("mode") == Mode.DRY_RUN or event.fields.get("dry_run")):
            key = event.text("server"), event.text("policy")
            self._stopped[key] = max(self._stopped.get(key, event), event, key=lambda each: each.time)
        dry_run = event.name == OUTCOME and event.text("outcome") == Result.DRY_RUN
        outcome = _OUTCOMES.get(event.text("dry_run_outcome")) if event.name == DRY_RUN_OUTCOME else None
        if server and (dry_run or outcome):
            self._note_outcome(server, run, event, outcome)

    def dry_runs(self) -> Iterable[DryRun]:
        """Every dry run, with its outcome."""
        for key, one in self._dry_runs.items():
            # Another run took over without an entry about this session: nothing is known after that.
            ended = one.outcome is None and self._newest[key.server][1] != one.run
            outcome = DryRunOutcome.UNKNOWN if ended else one.outcome
            after = Duration(max(one.until - one.at, 0))
            yield DryRun(
                key.server, key.policy, one.identity, outcome, one.at, one.idle, after, one.active, key.rules
            )

    def paused(self) -> list[dict[str, str | None]]:
        """The groups that the refill guard paused, with the last reason of each."""
        return [
            {key: event.text(key) for key in (*_GROUP, "until", "reason")} for event in self._groups.values()
        ]

    def stopped(self) -> list[dict[str, str | None]]:
        """The policies in dry run that their safety limit stopped, with the last reason of each."""
        return [
            {key: event.text(key) for key in ("server", "policy", "server_time", "reason")}
            for event in self._stopped.values()
        ]

    def _note_outcome(
        self, server: str, run: str | None, event: Event, outcome: DryRunOutcome | None
    ) -> None:
        one, pid = _dry_run(event), event.fields.get("pid")
        if one is None:
            return
        key = _LoggedKey(
            server,
            event.text("policy") or "",
            event.text("rules") or "",
            event.text("backend_start"),
            event.text("state_change"),
            pid if isinstance(pid, int) else None,
        )
        known = self._dry_runs.get(key, one)
        # The earliest entry has the age at which the policy matched.
        if one.at < known.at:
            known = replace(one, run=known.run, outcome=known.outcome, until=known.until)
        # Files may be in any order: only a later observation replaces an earlier one.
        seen = _time(event, "used_at") or _time(event, "dry_run_outcome_at" if outcome else "server_time")
        if seen is not None and seen >= known.until:
            known = replace(known, until=seen, run=run, outcome=outcome or known.outcome)
        self._dry_runs[key] = known


def _dry_run(event: Event) -> _LoggedDryRun | None:
    """The dry run in an entry; None if the entry is damaged."""
    at, idle = _time(event, "server_time"), event.fields.get("idle_s")
    # Compared, not converted: a damaged entry may hold a number that no duration can.
    if at is None or not isinstance(idle, int | float) or not abs(idle) <= _MAX_IDLE_SECONDS:
        return None
    return _LoggedDryRun(
        identity=Identity(*map(event.text, Identity._fields)),
        at=at,
        idle=Duration(round(idle * 1_000_000)),
        active=event.text("state") == ACTIVE,
        run=None,
    )


def _time(event: Event, field: str) -> Timestamp | None:
    time = parse_time(event.fields.get(field))
    return from_datetime(time) if time else None
