"""Advice about the connections of one server: findings with their numbers, and fixes.

The law of this package: it is pure, it applies nothing and it guesses nothing. A finding counts what was
observed, says how certain that makes it, and the report names what was not observed.
Its face: `collector.EvidenceCollector`, `advise.advise`, `advise.not_observed` and `proposals.proposals`.
"""
