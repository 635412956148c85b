"""Applications that open connections and do not close or reuse them."""

from collections.abc import Iterator
from typing import Final

from reaper.insight.advice.evidence import ApplicationSessions, Evidence
from reaper.insight.advice.finding import Confidence, Finding, Fix, Urgency, about
from reaper.insight.advice.timeouts import idle_session_fix
from reaper.policy.text import counted, percent
from reaper.policy.time import SECOND, Span

FEW: Final = 5
"""Every pool keeps some idle sessions: fewer than this are no finding."""
MOST_OF: Final = 0.5
_FEW_NEEDLESS: Final = 3
_NEEDLESS_SHARE: Final = 1 / 3
_HOUR: Final = Span(3_600 * SECOND)
_MAX_FINDINGS: Final = 5


def is_suspect(application: ApplicationSessions) -> bool:
    """Return True if it opened sessions while others of its own were idle, and did not close them."""
    idle = len(application.long_idle)
    return (
        idle >= FEW
        and idle >= application.count * MOST_OF
        and application.needless >= max(_FEW_NEEDLESS, idle * _NEEDLESS_SHARE)
        # A pool that renews its connections opens one for each that it closes.
        and not (application.closed and application.closed >= application.opened)
    )


def leaks(evidence: Evidence) -> Iterator[Finding]:
    """Each application that seems to leak connections."""
    suspects = sorted(filter(is_suspect, evidence.ordinary), key=lambda each: -len(each.long_idle))
    urgency = Urgency.NOW if evidence.is_full else Urgency.SOON
    for each in suspects[:_MAX_FINDINGS]:
        grew = evidence.snapshots > 1 and each.opened > each.closed
        confidence = Confidence.LIKELY if grew else Confidence.POSSIBLE
        title = f"{each.id.title} seems to leak connections"
        seen = list(_evidence(each, evidence))
        if not grew:
            seen.append("several small pools behind one address look the same: observe longer (`--for`)")
        fixes = tuple(_fixes(each, evidence))
        yield Finding("leak", urgency, confidence, title, tuple(seen), fixes, *each.id)
    if rest := suspects[_MAX_FINDINGS:]:
        title = f"{counted(len(rest), 'more application')} with fewer idle sessions may leak too"
        idle = f"{counted(sum(len(each.long_idle) for each in rest), 'idle session')} together"
        yield Finding("leak", urgency, Confidence.POSSIBLE, title, (idle,))


def _evidence(application: ApplicationSessions, evidence: Evidence) -> Iterator[str]:
    idle, count = len(application.long_idle), application.count
    longest = about(evidence.longest(application.long_idle))
    yield (
        f"{idle:,} of its {counted(count, 'session')} ({percent(idle / count)}) have been idle for more than "
        f"{about(evidence.idle_limit)}, the longest for {longest}"
    )
    yield (
        f"{application.needless:,} were opened while two or more from the same address were idle, and those "
        "are idle still: a pool would have used them first"
    )
    if evidence.snapshots > 1:
        done = f"closed {application.closed:,} and used {application.used:,}"
        yield f"{evidence.recently} it opened {application.opened:,}, {done}"
    if evidence.span < _HOUR and (rate := _opened_in_an_hour(application, evidence)):
        free = max(evidence.usable - evidence.last.slots.used, 0)
        lasts = f"; at this rate the {free:,} free slots last {about(free / rate * _HOUR)}" if free else ""
        yield f"{rate:,} were opened within the last hour{lasts}"


def _opened_in_an_hour(application: ApplicationSessions, evidence: Evidence) -> int:
    """Return how many of its sessions were opened in the last hour; 0 if the application is younger."""
    ages = [evidence.last.at - session.id.backend_start for session in application.sessions]
    return sum(age < _HOUR for age in ages) if max(ages) >= _HOUR else 0


def _fixes(application: ApplicationSessions, evidence: Evidence) -> Iterator[Fix]:
    yield Fix(
        "in the application: return each connection to the pool, also after an error (`with`, `finally`), "
        "and turn on the pool's leak detection",
        cost="a release of the application; only this ends the leak",
    )
    yield Fix(
        "until then: a policy that terminates the forgotten sessions",
        setting="reaper advise --policy starting.yaml",
        cost="a client that uses such a session again gets an error; the policy starts as a dry run",
    )
    yield from idle_session_fix(application, evidence)
