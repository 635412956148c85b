"""Slots: those in use and reserved, the roles that could take all of them, and the cost of more slots."""

import math
from collections.abc import Iterator, Mapping
from typing import Final

from reaper.insight.advice.evidence import Evidence
from reaper.insight.advice.finding import Confidence, Finding, Fix, Urgency, about, identifier, listed
from reaper.insight.advice.pools import is_suspect
from reaper.insight.advice.server_facts import ServerFacts
from reaper.policy.protections import pooler
from reaper.policy.text import counted, percent
from reaper.policy.time import isoformat

_RESERVED_SINCE: Final = 16
_RESERVED: Final = 2
_USUAL_RESERVED: Final = 3
_LARGE_SHARE: Final = 0.5
"""Of the slots: a role that holds more can soon hold all of them."""
_NEAR: Final = 0.9
_ROOM: Final = 0.1
"""Of the slots: what a connection limit has to leave to other roles."""
_MAX_FINDINGS: Final = 5
_KB_OF_SLOT: Final = 50
"""Shared memory of each slot, used or not: measured on 15 and 17, 49 MB for a thousand."""
_MB_OF_SESSION: Final = (1.5, 10)
"""A new session, and one that has read the whole catalog; measured on 13 to 18."""
_KB: Final = 1_024
_STEP: Final = 50
_COARSE_FROM: Final = 200


def slots(evidence: Evidence) -> Iterator[Finding]:
    """Nearly all slots are in use, or were."""
    if not evidence.is_scarce:
        return
    used, usable = evidence.last.slots.used, evidence.usable
    free = max(usable - used, 0)
    title = f"{percent(evidence.peak_share)} of the slots that ordinary roles can use were in use"
    if not free:
        title = f"all {usable:,} slots that ordinary roles can use are in use: new clients are refused"
    elif evidence.is_full:
        title = f"only {free:,} of the {usable:,} slots that ordinary roles can use are free"
    urgency = Urgency.NOW if evidence.is_full else Urgency.SOON
    seen, fixes = tuple(_slots_evidence(evidence)), (_slots_fix(evidence),)
    yield Finding("slots", urgency, Confidence.COUNTED, title, seen, fixes)


def _slots_evidence(evidence: Evidence) -> Iterator[str]:
    in_use, several = evidence.last.slots, evidence.snapshots > 1
    peak = f"; {evidence.peak:,} at the peak {evidence.observed}" if several else ""
    if evidence.is_long:
        peak += f", at {(isoformat(evidence.peak_at) or '')[:16]} UTC"
    yield f"{in_use.used:,} of {evidence.usable:,} in use now, {in_use.reserved:,} more are reserved{peak}"
    working = counted(evidence.most_working, "session was", "sessions were")
    yield f"{'at the peak ' if several else ''}{working} active or in a transaction"
    idle = sum(len(each.long_idle) for each in evidence.applications)
    yield f"{idle:,} have been idle for more than {about(evidence.idle_limit)}"
    if evidence.applications:
        yield f"held by {listed([f'{each.id.short} {each.count:,}' for each in evidence.applications])}"


def _slots_fix(evidence: Evidence) -> Fix:
    if any(each.long_idle for each in evidence.applications):
        return Fix(
            "terminate idle sessions by policies: write a first file, and check which sessions it matches",
            setting="reaper advise --policy starting.yaml\nreaper plan -c starting.yaml",
            cost="none yet: every policy in that file is a dry run until you set `mode: enforce`",
        )
    return Fix(
        "let fewer clients connect, or put a pooler before the server: these sessions are in use",
        cost="a pooler is one more program to run; terminating sessions in use would break their work",
    )


def reserved(evidence: Evidence) -> Iterator[Finding]:
    """No slot is reserved for superusers; or, if slots are scarce, none for other administrators."""
    facts = evidence.facts
    if facts and facts.number("superuser_reserved_connections") == 0:
        title = "no slot is reserved for superusers: when all are in use, no administrator can connect"
        fix = Fix(
            "reserve the usual three",
            sql=f"ALTER SYSTEM SET superuser_reserved_connections = {_USUAL_RESERVED};  -- then restart",
            cost="a restart, and three slots fewer for all other roles",
        )
        seen = "superuser_reserved_connections is 0"
        yield Finding("reserved", Urgency.SOON, Confidence.COUNTED, title, (seen,), (fix,))
    now = facts.number("reserved_connections") if facts and facts.major >= _RESERVED_SINCE else None
    if facts and evidence.is_scarce and now is not None and now < _RESERVED:
        role = identifier(evidence.last.watcher.role)
        grant = f"GRANT pg_use_reserved_connections TO {role};\n" if role and not facts.uses_reserved else ""
        title = "no slot is reserved for administrators that are not superusers"
        fix = Fix(
            "reserve a few for roles such as the reaper's",
            sql=f"{grant}ALTER SYSTEM SET reserved_connections = {_RESERVED};  -- then restart",
            cost="a restart, and two slots fewer for all other roles; a running reaper already has its slot",
        )
        seen = f"reserved_connections is {now}; {evidence.peak:,} of {evidence.usable:,} slots were in use"
        yield Finding("reserved", Urgency.WORTH, Confidence.COUNTED, title, (seen,), (fix,))


def more_slots(evidence: Evidence) -> Iterator[Finding]:
    """If slots are scarce: the cost of half as many more."""
    if evidence.facts is None or not evidence.is_scarce:
        return
    total = evidence.last.slots.total
    more = max(total // 2 // _STEP * _STEP, _STEP)
    fix = Fix(
        "only if every session is needed and the machine has the memory",
        sql=f"ALTER SYSTEM SET max_connections = {total + more};  -- then restart",
        cost="a restart, of standbys first (they need as many as the primary); a leak fills any number",
    )
    title, seen = "raising max_connections rarely helps", tuple(_more_slots(evidence, evidence.facts, more))
    yield Finding("max_connections", Urgency.WORTH, Confidence.POSSIBLE, title, seen, (fix,))


def _more_slots(evidence: Evidence, facts: ServerFacts, more: int) -> Iterator[str]:
    idle = 1 - evidence.most_working / max(evidence.peak, 1)
    if evidence.snapshots > 1 and idle > _LARGE_SHARE:
        yield f"{percent(idle)} of the sessions were idle even at the peak: more slots, more idle sessions"
    elif evidence.snapshots > 1:
        yield "most sessions were active: more than a few for each CPU core slow each other down"
    low, high = (_memory(each * more) for each in _MB_OF_SESSION)
    shared = _memory(_KB_OF_SLOT * more / _KB)
    yield f"{more:,} more take {shared} of shared memory at once, and {low} to {high} as idle sessions"
    work_mem = facts.number("work_mem")
    if work_mem is not None:
        yield f"an active session uses up to work_mem, {_memory(work_mem / _KB)}, for each sort or hash"
        yield f"{more:,} active sessions could use {_memory(more * work_mem / _KB)}, or several times that"


def _memory(megabytes: float) -> str:
    return f"{megabytes / _KB:.1f} GB" if megabytes >= _KB else f"{megabytes:.0f} MB"


def connection_limits(evidence: Evidence) -> Iterator[Finding]:
    """Each role without a connection limit that could take every slot."""
    suspected = {each.id.role for each in evidence.ordinary if is_suspect(each)}
    unlimited = sorted(_unlimited(evidence).items(), key=lambda item: (-item[1], item[0]))
    risky = [each for each in unlimited if each[0] in suspected or each[1] >= evidence.usable * _LARGE_SHARE]
    most = int(evidence.usable * (1 - _ROOM))
    for role, peak in risky[:_MAX_FINDINGS] if most >= 1 else ():
        leaks = "an application of it seems to leak; " if role in suspected else ""
        seen = (
            f"{leaks}it had up to {peak:,} of {counted(evidence.usable, 'slot')} {evidence.observed}",
            "it has no connection limit: if it takes all slots, every other role is refused too",
        )
        title, fixes = f"role {role!r} can take every slot", (_limit_fix(role, peak, most),)
        urgency = Urgency.SOON if evidence.is_scarce else Urgency.WORTH
        confidence = Confidence.LIKELY if evidence.is_long else Confidence.POSSIBLE
        yield Finding("connection limit", urgency, confidence, title, seen, fixes, role)


def _limit_fix(role: str, peak: int, most: int) -> Fix:
    limit = min(_headroom(peak), most)
    action, note = "set a limit above its peak", "before you rely on the number, observe a busy day"
    if peak >= limit:
        action = f"leave at least {percent(_ROOM)} of the slots to other roles"
        note = f"its {peak:,} sessions stay, and it gets no new one until it is below {limit:,}"
    sql = f"ALTER ROLE {identifier(role)} CONNECTION LIMIT {limit};"
    return Fix(action, sql, cost=f"beyond the limit only this role is refused (error 53300); {note}")


def _unlimited(evidence: Evidence) -> Mapping[str, int]:
    """Ordinary roles without a limit and their peaks; the server applies no limit to superusers."""
    roles = evidence.facts.roles.values() if evidence.facts else ()
    names = {role.name for role in roles if role.limit < 0 and not role.superuser}
    names &= {each.id.role for each in evidence.ordinary}
    names -= {each.id.role for each in evidence.applications if pooler(each.id.name)}
    return {name: peak for name, peak in evidence.role_peaks.items() if name in names and identifier(name)}


def near_limits(evidence: Evidence) -> Iterator[Finding]:
    """Each role that is near its own connection limit."""
    roles = evidence.facts.roles if evidence.facts else {}
    for name, peak in sorted(evidence.role_peaks.items(), key=lambda each: -each[1]):
        role = roles.get(name)
        if role is None or role.superuser or role.limit < 1 or peak < role.limit * _NEAR:
            continue
        full = peak >= role.limit
        idle = sum(len(each.long_idle) for each in evidence.of_role(name))
        title = f"role {name!r} {'has reached' if full else 'is near'} its connection limit of {role.limit:,}"
        seen = (f"up to {peak:,} {evidence.observed}, {idle:,} of them idle for long",)
        higher, fixes = _headroom(role.limit), list[Fix]()
        if identifier(name) and higher < evidence.usable * (1 - _ROOM):
            action = "if it needs more sessions and does not leak them: a higher limit"
            sql = f"ALTER ROLE {identifier(name)} CONNECTION LIMIT {higher};"
            fixes.append(Fix(action, sql, cost="fewer slots for other roles"))
        urgency = Urgency.NOW if full else Urgency.SOON
        yield Finding("connection limit", urgency, Confidence.COUNTED, title, seen, tuple(fixes), name)


def _headroom(count: int) -> int:
    """Return a round number that is half as much again, and at least five more."""
    enough = max(math.ceil(count * 1.5), count + 5)
    step = 5 if enough <= _COARSE_FROM else 50
    return math.ceil(enough / step) * step
