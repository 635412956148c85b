"""Whom advice on applications is about: not the tools, which have findings of their own."""

from collections.abc import Iterator

from reaper.policy.advice.evidence import Crowd, Evidence
from reaper.policy.advice.tools import is_console, is_monitoring
from reaper.policy.poolers import pooler
from reaper.policy.protections import is_backup_tool, is_managed


def ordinary(evidence: Evidence) -> Iterator[Crowd]:
    """Every crowd that is an application: no pooler, backup, console, monitoring or managed service."""
    for crowd in evidence.crowds:
        name = crowd.key.application
        tool = pooler(name) or is_backup_tool(name) or is_console(name) or is_monitoring(name)
        if not (tool or is_managed(crowd.key.role)):
            yield crowd


def poolers(evidence: Evidence) -> Iterator[Crowd]:
    """Every crowd that calls itself a pooler."""
    return (crowd for crowd in evidence.crowds if pooler(crowd.key.application))
