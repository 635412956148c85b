"""Policy files for the tests of the command."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from reaper.config.draft import exactly
from tests.postgres.sandbox import Role

Keys = Mapping[str, Any]

FILE: Final = "policies.yaml"


def leaked(role: Role, *, idle_for: str = "100ms", mode: str = "enforce", **keys: object) -> Keys:
    """A policy that takes every session of this role that has been idle for so long."""
    match = {"state": ["idle"], "idle_for": idle_for, "role": [exactly(role.name)]}
    return {"name": "leaked", "mode": mode, "match": match, **keys}


def policy_file(
    *policies: Keys,
    interval: str = "1s",
    min_interval: str = "100ms",
    servers: Sequence[Keys] = (),
    protect: Keys | None = None,
) -> str:
    """The text of a policy file."""
    head: dict[str, Any] = {"version": 1, "interval": interval, "min_interval": min_interval}
    if servers:
        head["servers"] = list(servers)
    if protect:
        head["protect"] = protect
    return yaml.safe_dump({**head, "policies": list(policies)}, sort_keys=False)
