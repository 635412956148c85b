"""Whether a rehearsed policy may be enforced, by what became of those that it would have terminated."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.insight.dryrun.regret import FEW, DryRun, Freed, Limit, Regret, freed, limit_under, middle
from reaper.policy.text import percent
from reaper.policy.time import Duration, exact_words, seconds

ENOUGH: Final = 35
"""Of so many none was used again: with 95% confidence it is less than every tenth."""


ASSESSMENT_FORMAT: Final = 1
"""The version of the documents."""

MOST_SHOWN: Final = 100
"""Applications, in a document."""


MANY_LEFT: Final = 0.1
"""With more than this share closed by their clients, what was not seen of them could turn the answer."""


class Advice(StrEnum):
    """Whether a policy in dry run would be safe to enforce."""

    SAFE = "safe"
    NOT_YET = "not yet"
    TOO_LITTLE = "too little seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a rehearsal has shown of one policy."""

    policy: str
    rules: str
    """The digest of the policy file by which these were judged."""
    earlier: int
    """Acts by other policy files, which are left out: its limits may have been others."""
    regret: Regret
    applications: tuple[tuple[str, Regret], ...]
    """Those with the most acts first."""
    servers: int
    freed: Freed
    used_again_after: Duration | None
    """The median of those that were used again, from the act on."""
    limit: Limit | None
    """The idle limit at which less than one in a hundred would have been regretted, if there is one."""
    active: bool
    """Its limit is `running_for`."""
    advice: Advice
    said: str
    """The advice as a sentence."""


def assess(dry_runs: Iterable[DryRun], *, by_any_rules: bool = False) -> tuple[Assessment, ...]:
    """Assess every policy of these, by name: by its newest policy file, unless any is wanted."""
    by_policy = defaultdict[str, list[DryRun]](list)
    for dry_run in dry_runs:
        by_policy[dry_run.policy].append(dry_run)
    return tuple(
        _assess(policy, by_policy[policy], by_any_rules=by_any_rules) for policy in sorted(by_policy)
    )


def _assess(policy: str, every: Sequence[DryRun], *, by_any_rules: bool) -> Assessment:
    _, newest = max((one.at, one.rules) for one in every)
    dry_runs = [dry_run for dry_run in every if by_any_rules or dry_run.rules == newest]
    regret = Regret.of(dry_runs)
    limit = limit_under(dry_runs)
    advice = _advice(regret)
    return Assessment(
        policy=policy,
        rules=newest,
        earlier=len(every) - len(dry_runs),
        regret=regret,
        applications=_by_application(dry_runs),
        servers=len({dry_run.server for dry_run in dry_runs}),
        freed=freed(dry_runs),
        used_again_after=middle(
            [dry_run.after for dry_run in dry_runs if dry_run.outcome is DryRunOutcome.USED_AGAIN]
        ),
        limit=limit,
        active=any(dry_run.active for dry_run in dry_runs),
        advice=advice,
        said=_said(advice, regret, dry_runs, limit),
    )


def assessment_document(one: Assessment) -> dict[str, object]:
    """The assessment as JSON."""
    return {
        "policy": one.policy,
        "advice": one.advice.value,
        "summary": one.said,
        "dry_runs": one.regret.acts,
        "earlier_dry_runs": one.earlier,
        "rules": one.rules,
        "servers": one.servers,
        "slots_at_once": one.freed.slots,
        "session_hours": round(one.freed.hours, 2),
        **_counts(one.regret),
        "used_again_after_s": None if one.used_again_after is None else seconds(one.used_again_after),
        "limit": _limit(one),
        "applications": [
            {"application": name, **_counts(each)} for name, each in one.applications[:MOST_SHOWN]
        ],
        "more_applications": max(len(one.applications) - MOST_SHOWN, 0),
    }


def _counts(regret: Regret) -> dict[str, object]:
    return {
        "decided": regret.decided,
        "unused": regret.unused,
        "left": regret.left,
        "used_again": regret.used_again,
        "unknown": regret.unknown,
        "too_soon": regret.too_soon,
        "regret": regret.rate,
        "regret_up_to": regret.upper,
        "regret_if_all_left_were_used": regret.at_most,
    }


def _limit(one: Assessment) -> dict[str, object] | None:
    if one.limit is None:
        return None
    key = "running_for" if one.active else "idle_for"
    span, revived, decided = one.limit
    return {"key": key, "limit": exact_words(span), "used_again": revived, "decided": decided}


def _by_application(dry_runs: Sequence[DryRun]) -> tuple[tuple[str, Regret], ...]:
    groups = defaultdict[str, list[DryRun]](list)
    for dry_run in dry_runs:
        groups[dry_run.identity.application or ""].append(dry_run)
    counted = [(name, Regret.of(group)) for name, group in groups.items()]
    return tuple(sorted(counted, key=lambda each: (-each[1].acts, each[0])))


def _advice(regret: Regret) -> Advice:
    if regret.rate is not None and regret.rate >= FEW:
        return Advice.NOT_YET
    sure = regret.decided >= ENOUGH and regret.left <= MANY_LEFT * regret.decided
    return Advice.SAFE if sure else Advice.TOO_LITTLE


def _said(advice: Advice, regret: Regret, dry_runs: Sequence[DryRun], limit: Limit | None) -> str:
    if advice is Advice.NOT_YET:
        mostly = _mostly(dry_runs, DryRunOutcome.USED_AGAIN)
        hit = f"{regret.used_again} of {regret.decided} used again, {mostly}"
        return f"not yet: {hit}; {_instead(dry_runs, limit)}"
    if advice is Advice.TOO_LITTLE and regret.decided >= ENOUGH:
        session_words = _mostly(dry_runs, DryRunOutcome.LEFT)
        closed = f"{regret.left} of {regret.decided} were closed, {session_words}"
        return f"too little seen: {closed}; whether they were used just before cannot be told"
    if advice is Advice.TOO_LITTLE:
        none = "none was used again so far; " if regret.decided else ""
        return f"too little seen: {none}{regret.decided} of {regret.acts} can be judged, {ENOUGH} are needed"
    some = "none" if not regret.used_again else f"{regret.used_again}"
    closed = f"; {regret.left} left by themselves, maybe after a last use" if regret.left else ""
    return (
        f"safe to enforce by what was seen: {some} of {regret.decided} used again, "
        f"less than {percent(regret.upper)} with 95% confidence{closed}"
    )


def _mostly(dry_runs: Sequence[DryRun], outcome: DryRunOutcome) -> str:
    """The applications of these sessions: `mostly checkout-*`, or their number."""
    families = Counter(
        _family(dry_run.identity.application) for dry_run in dry_runs if dry_run.outcome is outcome
    )
    ((family, count),) = families.most_common(1)
    if len(families) == 1:
        return f"all of {family}"
    if 2 * count > families.total():
        return f"mostly {family}"
    return f"of {len(families)} kinds of application"


def _family(application: str | None) -> str:
    """`checkout-*` for `checkout-17`: pods and workers number themselves."""
    if not application:
        return "(unnamed)"
    stem = application.rstrip("0123456789")
    return f"{stem}*" if stem and stem != application else application


def _instead(dry_runs: Sequence[DryRun], limit: Limit | None) -> str:
    if limit is None:
        return "no longer limit that was seen would do"
    key = "running_for" if any(dry_run.active for dry_run in dry_runs) else "idle_for"
    met = f"{limit.used_again or 'none'} of {limit.decided}"
    return f"at {key}: {exact_words(limit.span)} it would have been {met}"
