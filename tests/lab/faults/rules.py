"""The policy file that the reapers of a campaign work by."""

from typing import Final

from tests.system.policies import policy_file

_POLICIES: Final = (
    ("leaked", ["idle"]),
    ("forgotten", ["idle in transaction", "idle in transaction (aborted)"]),
)


def rules(dsn: str, *, limit: float, mode: str = "enforce") -> str:
    """Take what is idle for so many seconds; an allowlist and the protections spare some of it."""
    policies = [
        {
            "name": name,
            "mode": mode,
            "match": {"state": states, "idle_for": f"{round(limit * 1000)}ms", "role": ["app", "postgres"]},
            "allowlist": {"application": ["metabase"]},
            # Leaks pile up while nobody looks, and that is no mistake in a glob.
            "brake": {"share": "100%"},
            "pace": {"per_cycle": 20},
            # Whoever is ended comes back at once, as a pool does: it would rightly be left alone.
            "churn": "off",
        }
        for name, states in _POLICIES
    ]
    # What only rehearses is watched afterwards, beside all that is done for real.
    rehearsed = {**policies[0], "name": "rehearsed", "mode": "dry-run"}
    return policy_file(
        *policies,
        rehearsed,
        interval="1s",
        precision="50ms",
        servers=[{"name": "server", "dsn": dsn}],
        protect={"application": ["nightly-*"]},
    )
