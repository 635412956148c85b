"""Rules that have an answer for nearly everybody, so that deciding goes its longest ways."""

from typing import Final

from reaper.config import read
from reaper.policy.rules import Rules

_FILE: Final = b"""\
version: 1
protect: {application: ["*protected*"], client: [10.9.0.0/16, "2001:db8::/32"]}
policies:
  - name: leaked
    mode: enforce
    match: {state: [idle], idle_for: 1ms, role: ["*[!q]*"], client: [local, 10.0.0.0/8, "::/0"]}
    allowlist: {application: ["[a-f]*z?"], role: ["?*q"]}
  - name: kept
    mode: enforce
    match: {state: [idle, idle in transaction], connected_for: 1ms}
    override_protections: [superusers, listeners, backups, poolers, advisory-locks, replication]
    during: ["00:00-24:00", Mon-Fri 20:00-06:00 Europe/Berlin]
    when: {slots_used: 1%}
    keep: {newest: 1, per: [application]}
    safety_limit: none
  - name: capped
    match: {state: [idle in transaction (aborted)], idle_for: 1s}
    max_sessions: {count: 1, per: [role, client]}
  - name: cancelled
    match: {state: [active], running_for: 1s, blocking: true}
    action: cancel
  - name: vacuum
    match: {state: [idle], idle_for: 1s, xmin_age: 5}
"""
RULES: Final[Rules] = read(_FILE, file="rules").rules
