"""Pools: those that leak, are too large or are in full use, and sizes with which all of them fit."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from reaper.insight.advice.evidence import ApplicationSessions, Evidence
from reaper.insight.advice.finding import Confidence, Finding, Fix, Urgency, about, listed
from reaper.insight.advice.timeouts import idle_session_fix
from reaper.policy.protections import pooler
from reaper.policy.text import counted, percent
from reaper.policy.time import SECOND, Duration

_FEW: Final = 5
"""Every pool keeps some idle sessions: fewer than this are no finding."""
_MOST_OF: Final = 0.5
_FEW_NEEDLESS: Final = 3
_NEEDLESS_SHARE: Final = 1 / 3
_HOUR: Final = Duration(3_600 * SECOND)
_FREQUENT: Final = 1.0
"""Connections a second: at a few milliseconds each that is noticeable."""
_FEW_OPENED: Final = 20
_IDLE_SHARE: Final = 0.2
_MANY_SESSIONS: Final = 50
_MIN_POOLER_SIZE: Final = 5
_MIN_POOL_SIZE: Final = 2
_LARGE: Final = 0.1
"""Of the slots: while slots are left, a pool with fewer idle sessions does no harm."""
_BUSY: Final = 0.25
_TO_SHARE: Final = 0.9
"""Of the slots; the rest is for people, jobs and applications that were not observed."""
_TIGHT: Final = 0.7
_MAX_LISTED: Final = 5


def is_suspect(application: ApplicationSessions) -> bool:
    """Return True if it opened sessions while others of its own were idle, and did not close them."""
    idle = len(application.long_idle)
    return (
        idle >= _FEW
        and idle >= application.count * _MOST_OF
        and application.needless >= max(_FEW_NEEDLESS, idle * _NEEDLESS_SHARE)
        # A pool that renews its connections opens one for each that it closes.
        and not (application.closed and application.closed >= application.opened)
    )


def leaks(evidence: Evidence) -> Iterator[Finding]:
    """Each application that seems to leak connections."""
    suspects = sorted(filter(is_suspect, evidence.ordinary), key=lambda each: -len(each.long_idle))
    urgency = Urgency.NOW if evidence.is_full else Urgency.SOON
    for each in suspects[:_MAX_LISTED]:
        grew = evidence.snapshots > 1 and each.opened > each.closed
        confidence = Confidence.LIKELY if grew else Confidence.POSSIBLE
        title = f"{each.id.title} seems to leak connections"
        seen = list(_leak_evidence(each, evidence))
        if not grew:
            seen.append("several small pools behind one address look the same: observe longer (`--for`)")
        fixes = tuple(_leak_fixes(each, evidence))
        yield Finding("leak", urgency, confidence, title, tuple(seen), fixes, *each.id)
    if rest := suspects[_MAX_LISTED:]:
        title = f"{counted(len(rest), 'more application')} with fewer idle sessions may leak too"
        idle = f"{counted(sum(len(each.long_idle) for each in rest), 'idle session')} together"
        yield Finding("leak", urgency, Confidence.POSSIBLE, title, (idle,))


def _leak_evidence(application: ApplicationSessions, evidence: Evidence) -> Iterator[str]:
    idle, count = len(application.long_idle), application.count
    longest = f"the longest for {about(evidence.longest(application.long_idle))}"
    of = f"{idle:,} of its {counted(count, 'session')} ({percent(idle / count)})"
    yield f"{of} have been idle for more than {about(evidence.idle_limit)}, {longest}"
    yield (
        f"{application.needless:,} were opened while two or more from the same address were idle, and those "
        "are idle still: a pool would have used them first"
    )
    if evidence.snapshots > 1:
        done = f"closed {application.closed:,} and used {application.used:,}"
        yield f"{evidence.recently} it opened {application.opened:,}, {done}"
    ages = [evidence.last.at - session.id.backend_start for session in application.sessions]
    # The rate of an application that is younger than an hour is that of its start.
    rate = sum(age < _HOUR for age in ages) if max(ages) >= _HOUR else 0
    if rate and evidence.span < _HOUR:
        free = max(evidence.usable - evidence.last.slots.used, 0)
        lasts = f"; at this rate the {free:,} free slots last {about(free / rate * _HOUR)}" if free else ""
        yield f"{rate:,} were opened within the last hour{lasts}"


def _leak_fixes(application: ApplicationSessions, evidence: Evidence) -> Iterator[Fix]:
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


def transaction_pooling(evidence: Evidence) -> Iterator[Finding]:
    """Clients that connect again and again, or many sessions of which few are active at once."""
    rate = _connections_a_second(evidence)
    frequent = rate is not None and rate >= _FREQUENT
    mostly_idle = (
        evidence.snapshots > 1
        and evidence.is_scarce
        and evidence.peak >= _MANY_SESSIONS
        and evidence.most_working <= evidence.peak * _IDLE_SHARE
        # Leaked sessions would be leaked behind a pooler too.
        and not any(map(is_suspect, evidence.ordinary))
    )
    if not (frequent or mostly_idle):
        return
    action = "put PgBouncer in transaction mode before the server"
    title = "many sessions hold slots, few are active"
    if frequent:
        action = f"keep connections open in the applications' pools, or {action}"
        title = "clients open new connections all the time"
    seen = tuple(_pooling_evidence(evidence, rate if frequent else None))
    # Half as many again as the busiest application needed at once.
    busiest = max((each.most_working for each in evidence.ordinary), default=0)
    size = max(math.ceil(busiest * 1.5), _MIN_POOLER_SIZE)
    fix = Fix(
        action,
        setting=f"pool_mode = transaction\ndefault_pool_size = {size}  ; for each database and role\n"
        "max_prepared_statements = 200  ; from PgBouncer 1.21 on",
        cost="; ".join(_pooling_costs(evidence)),
    )
    confidence = Confidence.LIKELY if frequent else Confidence.POSSIBLE
    yield Finding("pooler", Urgency.WORTH, confidence, title, seen, (fix,))


def _connections_a_second(evidence: Evidence) -> float | None:
    """The rate by the server's own counter, or else by the snapshots; None if too few were opened."""
    before, after = evidence.facts_before, evidence.facts
    span, opened = evidence.span, evidence.opened
    if before and after and before.opened is not None and after.opened is not None:
        span, opened = Duration(after.at - before.at), after.opened - before.opened
    return opened / (span / SECOND) if opened >= _FEW_OPENED and span > 0 else None


def _pooling_evidence(evidence: Evidence, rate: float | None) -> Iterator[str]:
    if rate is not None:
        by_server = evidence.facts is not None and evidence.facts.opened is not None
        how = "counted by the server" if by_server else "counted in snapshots, so probably more"
        yield f"{rate:.1f} connections a second, {how}; the server starts a process for each"
        if evidence.short_lived:
            yield f"{counted(evidence.short_lived, 'session')} were opened and closed in this time"
    most, share = evidence.most_working, percent(evidence.most_working / max(evidence.peak, 1))
    at_most = f"of {counted(evidence.peak, 'session')} at most {most:,} ({share})"
    yield f"{at_most} were active or in a transaction, {evidence.observed}"
    if names := sorted({each.id.name for each in evidence.applications if pooler(each.id.name)}):
        yield f"there is a pooler already ({listed(list(map(repr, names)))}): some clients bypass it"


def _pooling_costs(evidence: Evidence) -> Iterator[str]:
    yield "it breaks SET, temporary tables, WITH HOLD, LISTEN and session locks, which outlast a transaction"
    listeners = sum(session.last_query_listens for session in evidence.last.sessions)
    holders = evidence.last.facts.advisory_lock_holders or frozenset()
    locked = sum(session.id.pid in holders for session in evidence.last.sessions)
    found = [counted(listeners, "listener")] if listeners else []
    found += [f"{counted(locked, 'holder')} of advisory locks"] if locked else []
    if found:
        yield f"{' and '.join(found)} seen now would have to bypass it"
    yield "it is one more program to run"


def large_pools(evidence: Evidence) -> Iterator[Finding]:
    """Pools that keep many more connections than they use."""
    found = _large(evidence)
    if not found:
        return
    title = f"{counted(len(found), 'application')} keep more connections than they use"
    role, name = None, None
    if len(found) == 1:
        title = f"{found[0].id.title} keeps more connections than it uses"
        role, name = found[0].id
    fix = Fix(
        "use smaller pools that close idle connections",
        setting="\n".join(_pool_line(each, _needed(each)) for each in found[:_MAX_LISTED]),
        cost="at a peak that was not observed, callers wait in the pool instead of on the server",
    )
    seen = tuple(_large_evidence(found, evidence))
    urgency = Urgency.SOON if evidence.is_scarce else Urgency.WORTH
    confidence = Confidence.LIKELY if evidence.is_long else Confidence.POSSIBLE
    yield Finding("large pool", urgency, confidence, title, seen, (fix,), role, name)


def _large(evidence: Evidence) -> list[ApplicationSessions]:
    fewest = max(_FEW, 0 if evidence.is_scarce else evidence.usable * _LARGE)
    found = [
        each
        for each in evidence.ordinary
        if len(each.long_idle) >= max(fewest, each.count * _MOST_OF)
        and not is_suspect(each)
        and _needed(each) < max(each.clients.values())
    ]
    return sorted(found, key=lambda each: -len(each.long_idle))


def _needed(application: ApplicationSessions) -> int:
    """The sessions that one client seems to need: a quarter more than it used."""
    used = max(application.count - len(application.long_idle), application.most_working)
    return max(-(-(used + used // 4) // len(application.clients)), _MIN_POOL_SIZE)


def _large_evidence(found: Sequence[ApplicationSessions], evidence: Evidence) -> Iterator[str]:
    limit = about(evidence.idle_limit)
    for each in found[:_MAX_LISTED]:
        idle = len(each.long_idle)
        of = f"{idle:,} of {counted(each.count, 'session')}"
        yield f"{each.id.short}: {of} idle for more than {limit}, {each.count - idle:,} used since"
    if len(found) > _MAX_LISTED:
        yield f"and {counted(len(found) - _MAX_LISTED, 'more application')} like these"
    grown = sum(each.opened - each.closed for each in found)
    if evidence.snapshots > 1:
        no_leak = "" if grown > 0 or any(each.needless for each in found) else ": no sign of a leak"
        more = counted(grown, "more session") if grown > 0 else "no more sessions"
        yield f"{evidence.recently} {more}{no_leak}"
    if not evidence.is_long:
        yield f"judged by the last {limit}: observe a busy time too (`--history`)"


def busy_pools(evidence: Evidence) -> Iterator[Finding]:
    """If slots are scarce: applications that hold many and use them."""
    if not evidence.is_scarce or evidence.snapshots == 1:
        return
    fix = Fix(
        "share connections: a pooler in transaction mode, or smaller pools",
        cost="none of these sessions is idle: terminating them would not help",
    )
    for each in evidence.ordinary:
        if each.count < evidence.usable * _BUSY or each.used < each.count * _MOST_OF:
            continue
        title = f"{each.id.title} holds many slots and uses them: this is load, not a leak"
        seen = (
            f"{each.used:,} of its {counted(each.count, 'session')} were used {evidence.recently}",
            f"at most {each.most_working:,} at once were active or in a transaction",
        )
        yield Finding("busy pool", Urgency.WORTH, Confidence.COUNTED, title, seen, (fix,), *each.id)


def pool_sizes(evidence: Evidence) -> Iterator[Finding]:
    """If slots are tight and in use: a maximum for each client, so that one more of each fits."""
    found = [each for each in evidence.ordinary if each.count >= _MIN_POOL_SIZE]
    others = evidence.last.slots.used - sum(each.count for each in found)
    to_share = int(evidence.usable * _TO_SHARE) - others
    possible = sum(max(each.clients.values()) * (len(each.clients) + 1) for each in found)
    tight = evidence.peak_share >= _TIGHT and possible > to_share >= len(found)
    # Where another application is the cause, no good pool should become smaller for it.
    if not (found and tight) or _large(evidence) or any(map(is_suspect, found)):
        return
    total = sum(each.count for each in found)
    held = listed([f"{each.id.short} {each.count:,} from {len(each.clients):,}" for each in found])
    reserve = percent(1 - _TO_SHARE)
    sizes = [int(to_share * each.count / total / (len(each.clients) + 1)) for each in found]
    lines = [_pool_line(each, size) for each, size in zip(found, sizes, strict=True)]
    title = "the slots are too few for one more instance of each application, as during a release"
    seen = (
        f"{counted(len(found), 'application')} could hold {possible:,} with one more instance each: {held}",
        f"{evidence.usable:,} slots, less {reserve} in reserve and {others:,} of others, leave {to_share:,}",
        "an instance here is a client address: several behind one address look like one",
    )
    fix = Fix(
        "a maximum for the pool of each instance, in proportion to its sessions now",
        setting="\n".join(lines[:_MAX_LISTED]),
        cost="callers wait when the pool is exhausted; measure that wait before you choose less",
    )
    yield Finding("pool sizes", Urgency.WORTH, Confidence.POSSIBLE, title, seen, (fix,))


def _pool_line(application: ApplicationSessions, size: int) -> str:
    largest, instances = max(application.clients.values()), counted(len(application.clients), "instance")
    most = max(min(size, largest), 1)
    return f"{application.id.short}: at most {most:,} for each of {instances} (now up to {largest:,})"
