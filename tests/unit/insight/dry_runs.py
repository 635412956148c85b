"""Builders of dry runs and outcomes."""

from collections.abc import Iterator

from reaper.insight.dryrun.outcomes import DryRunOutcome, DryRunSession
from reaper.insight.dryrun.regret import DryRun
from reaper.policy.plan import Candidate
from reaper.policy.rules import Mode
from reaper.policy.session import Identity, Session
from reaper.policy.time import Duration, Timestamp, parse_duration
from tests.unit.policy.build import NOW, policy, session

DRY = policy("dry", mode=Mode.DRY_RUN)


def watched(seen: Session | None = None, *, at: Timestamp = NOW) -> DryRunSession:
    """A session with a dry run after an hour by default."""
    candidate = Candidate(
        session=session() if seen is None else seen, policy=DRY, reason="idle 1h, limit 10m"
    )
    return DryRunSession(intent="life/1", candidate=candidate, at=at, cycle="7", rules="d1gest")


def dry_run(
    outcome: DryRunOutcome | None, *, idle: str = "10m", after: str = "1h", application: str = "web-1"
) -> DryRun:
    """A dry run of a policy with a limit of ten minutes."""
    who = Identity("shop", "app_web", application, "10.2.0.7")
    return DryRun("orders", "dry", who, outcome, NOW, parse_duration(idle), parse_duration(after))


def dry_runs(
    count: int, outcome: DryRunOutcome | None, *, after: str = "1h", application: str = "web-1"
) -> Iterator[DryRun]:
    """Equal dry runs."""
    return (dry_run(outcome, after=after, application=application) for _ in range(count))


def after(moment: Timestamp, text: str) -> Timestamp:
    """A later timestamp."""
    return Timestamp(moment + Duration(parse_duration(text)))
