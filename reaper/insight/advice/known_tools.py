"""Whom advice on applications is about: not the tools, which have findings of their own."""

from collections.abc import Iterator

from reaper.insight.advice.evidence import Crowd, Evidence


def ordinary(evidence: Evidence) -> Iterator[Crowd]:
    """Every crowd that is an application."""
    return (crowd for crowd in evidence.crowds if crowd.is_ordinary)


def poolers(evidence: Evidence) -> Iterator[Crowd]:
    """Every crowd that calls itself a pooler."""
    return (crowd for crowd in evidence.crowds if crowd.is_pooler)
