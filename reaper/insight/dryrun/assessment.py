"""The assessment of a policy in dry run: whether it is safe to enforce, by the outcomes of its dry runs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reaper.insight.dryrun.outcomes import DryRunOutcome
from reaper.insight.dryrun.regret import FEW, DryRun, Freed, Limit, Regret, freed, limit_under, median
from reaper.policy.text import percent
from reaper.policy.time import Duration, exact_words, seconds

ENOUGH: Final = 35
"""If none of 35 sessions was used again, the rate is below 10 % with 95 % confidence."""

ASSESSMENT_FORMAT: Final = 1
"""The version of the JSON documents."""

_MOST_APPLICATIONS: Final = 100

_MANY_LEFT: Final = 0.1
"""If a larger share has left, uses that were not observed could change the advice."""


class Advice(StrEnum):
    """Whether a policy in dry run would be safe to enforce."""

    SAFE = "safe"
    NOT_YET = "not yet"
    TOO_LITTLE = "too little seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the dry runs of one policy have shown."""

    policy: str
    rules: str
    """The digest of the policy file."""
    earlier: int
    """Dry runs of other policy files; they are left out because the limits may have been others."""
    regret: Regret
    applications: tuple[tuple[str, Regret], ...]
    """The applications with the most dry runs first."""
    servers: int
    freed: Freed
    used_again_after: Duration | None
    """The median of the sessions that were used again, from the dry run on."""
    limit: Limit | None
    """The idle limit at which less than 1 % would have been regretted, if there is one."""
    active: bool
    """The sessions ran statements: the limit is `running_for`."""
    advice: Advice
    summary: str
    """The advice as a sentence."""

    @property
    def key(self) -> str:
        """The key of the policy file that the limit is for."""
        return _key(active=self.active)


def assess(dry_runs: Iterable[DryRun], *, by_any_rules: bool = False) -> tuple[Assessment, ...]:
    """Assess every policy, in order of name, by the dry runs of its newest policy file or of all files."""
    by_policy = defaultdict[str, list[DryRun]](list)
    for dry_run in dry_runs:
        by_policy[dry_run.policy].append(dry_run)
    return tuple(
        _assess(policy, by_policy[policy], by_any_rules=by_any_rules) for policy in sorted(by_policy)
    )


def _assess(policy: str, every: Sequence[DryRun], *, by_any_rules: bool) -> Assessment:
    _, newest = max((one.at, one.rules) for one in every)
    dry_runs = [dry_run for dry_run in every if by_any_rules or dry_run.rules == newest]
    regret, limit = Regret.of(dry_runs), limit_under(dry_runs)
    advice = _advice(regret)
    used_again = [dry_run.after for dry_run in dry_runs if dry_run.outcome is DryRunOutcome.USED_AGAIN]
    return Assessment(
        policy=policy,
        rules=newest,
        earlier=len(every) - len(dry_runs),
        regret=regret,
        applications=_by_application(dry_runs),
        servers=len({dry_run.server for dry_run in dry_runs}),
        freed=freed(dry_runs),
        used_again_after=median(used_again),
        limit=limit,
        active=any(dry_run.active for dry_run in dry_runs),
        advice=advice,
        summary=_summary(advice, regret, dry_runs, limit),
    )


def assessment_document(one: Assessment) -> dict[str, object]:
    """The assessment as JSON."""
    after, limit = one.used_again_after, one.limit
    return {
        "policy": one.policy,
        "advice": one.advice.value,
        "summary": one.summary,
        "dry_runs": one.regret.total,
        "earlier_dry_runs": one.earlier,
        "rules": one.rules,
        "servers": one.servers,
        "slots_at_once": one.freed.slots,
        "session_hours": round(one.freed.hours, 2),
        **_counts(one.regret),
        "used_again_after_s": None if after is None else seconds(after),
        "limit": limit
        and {
            "key": one.key,
            "limit": exact_words(limit.span),
            "used_again": limit.used_again,
            "decided": limit.decided,
        },
        "applications": [
            {"application": name, **_counts(each)} for name, each in one.applications[:_MOST_APPLICATIONS]
        ],
        "more_applications": len(one.applications[_MOST_APPLICATIONS:]),
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


def _by_application(dry_runs: Sequence[DryRun]) -> tuple[tuple[str, Regret], ...]:
    groups = defaultdict[str, list[DryRun]](list)
    for dry_run in dry_runs:
        groups[dry_run.identity.application or ""].append(dry_run)
    counted = [(name, Regret.of(group)) for name, group in groups.items()]
    return tuple(sorted(counted, key=lambda each: (-each[1].total, each[0])))


def _advice(regret: Regret) -> Advice:
    if regret.rate is not None and regret.rate >= FEW:
        return Advice.NOT_YET
    sure = regret.decided >= ENOUGH and regret.left <= _MANY_LEFT * regret.decided
    return Advice.SAFE if sure else Advice.TOO_LITTLE


def _summary(advice: Advice, regret: Regret, dry_runs: Sequence[DryRun], limit: Limit | None) -> str:
    if advice is Advice.NOT_YET:
        mostly = _mostly(dry_runs, DryRunOutcome.USED_AGAIN)
        used = f"{regret.used_again} of {regret.decided} used again, {mostly}"
        return f"not yet: {used}; {_better_limit(dry_runs, limit)}"
    if advice is Advice.TOO_LITTLE and regret.decided >= ENOUGH:
        closed = f"{regret.left} of {regret.decided} were closed, {_mostly(dry_runs, DryRunOutcome.LEFT)}"
        return f"too little seen: {closed}; a use just before cannot be excluded"
    if advice is Advice.TOO_LITTLE:
        none = "none was used again so far; " if regret.decided else ""
        known = f"{regret.decided} of {regret.total} have a known outcome"
        return f"too little seen: {none}{known}, {ENOUGH} are needed"
    some = f"{regret.used_again or 'none'} of {regret.decided} used again"
    closed = f"; {regret.left} left by themselves, maybe after a last use" if regret.left else ""
    bound = f"less than {percent(regret.upper)} with 95% confidence"
    return f"safe to enforce by what was seen: {some}, {bound}{closed}"


def _mostly(dry_runs: Sequence[DryRun], outcome: DryRunOutcome) -> str:
    """The applications of the sessions with this outcome: `mostly checkout-*`, or their number."""
    families = Counter(_family(one.identity.application) for one in dry_runs if one.outcome is outcome)
    ((family, count),) = families.most_common(1)
    if len(families) == 1:
        return f"all of {family}"
    if 2 * count > families.total():
        return f"mostly {family}"
    return f"of {len(families)} kinds of application"


def _family(application: str | None) -> str:
    """`checkout-*` for `checkout-17`: pods and workers have numbers in their names."""
    if not application:
        return "(unnamed)"
    stem = application.rstrip("0123456789")
    return f"{stem}*" if stem and stem != application else application


def _key(*, active: bool) -> str:
    return "running_for" if active else "idle_for"


def _better_limit(dry_runs: Sequence[DryRun], limit: Limit | None) -> str:
    if limit is None:
        return "no limit among the idle times seen would do"
    key = _key(active=any(dry_run.active for dry_run in dry_runs))
    matched = f"{limit.used_again or 'none'} of {limit.decided}"
    return f"at {key}: {exact_words(limit.span)} it would have been {matched}"
