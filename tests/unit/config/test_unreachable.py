import pytest

from reaper.config import read

USUAL = "state: [idle], idle_for: 10m"


def is_unreachable(
    earlier: str, later: str, *, above: str = "mode: enforce", below: str = "mode: enforce"
) -> bool:
    text = f"""
version: 1
servers: [{{name: all, labels: {{env: prod, team: shop}}}}]
policies:
  - {{name: a, match: {{{earlier}}}, {above}}}
  - {{name: b, match: {{{later}}}, {below}}}
"""
    warnings = read(text.encode(), file="x").warnings
    assert all(warning.where == "policies[1].name" for warning in warnings)
    return bool(warnings)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (USUAL, USUAL),
        (USUAL, "state: [idle], idle_for: 1h, connected_for: 2h, role: [app], blocking: true"),
        ("state: [idle, idle in transaction], idle_for: 10m", USUAL),
        (USUAL + ", role: ['app_*']", USUAL + ", role: [app_one, app_two]"),
        (USUAL + ", role: ['app_*']", USUAL + ", role: ['app_*'], database: [shop]"),
        (USUAL + ", client: [10.0.0.0/8, local]", USUAL + ", client: [10.1.0.0/16, 10.2.3.4, local]"),
        (USUAL + ", client: ['2001:db8::/32']", USUAL + ", client: ['2001:db8:1::/48']"),
        (USUAL + ", blocking: true", USUAL + ", blocking: true"),
        (USUAL + ", xmin_age: 10", USUAL + ", xmin_age: 11"),
    ],
)
def test_a_policy_below_one_that_covers_it_is_unreachable(earlier: str, later: str) -> None:
    assert is_unreachable(earlier, later)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("state: [idle], idle_for: 1h", USUAL),
        ("state: [idle], connected_for: 10m", USUAL),
        (USUAL, "state: [idle, idle in transaction], idle_for: 10m"),
        (USUAL + ", role: [app]", USUAL),
        (USUAL + ", role: [app_one]", USUAL + ", role: ['app_*']"),
        (USUAL + ", role: ['app_*']", USUAL + ", role: [app_one, web]"),
        (USUAL + ", role: ['app_*']", USUAL + ", role: ['app_[a]']"),
        (USUAL + ", role: [app]", USUAL + ", database: [app]"),
        (USUAL + ", client: [10.0.0.0/8]", USUAL + ", client: ['::1']"),
        (USUAL + ", client: ['2001:db8::/32']", USUAL + ", client: [10.0.0.1]"),
        (USUAL + ", client: [10.0.0.0/8]", USUAL + ", client: [local]"),
        (USUAL + ", blocking: true", USUAL),
        (USUAL + ", xmin_age: 10", USUAL + ", xmin_age: 9"),
        (USUAL + ", xmin_age: 10", USUAL),
    ],
)
def test_a_policy_with_sessions_of_its_own_is_reachable(earlier: str, later: str) -> None:
    assert not is_unreachable(earlier, later)


@pytest.mark.parametrize(
    ("above", "below", "unreachable"),
    [
        *[("enforce", "enforce", True), ("enforce", "dry-run", True), ("dry-run", "dry-run", True)],
        *[("dry-run", "enforce", False), ("disabled", "enforce", False), ("enforce", "disabled", False)],
    ],
)
def test_only_policies_that_compete_cover_each_other(above: str, below: str, *, unreachable: bool) -> None:
    assert is_unreachable(USUAL, USUAL, above=f"mode: {above}", below=f"mode: {below}") is unreachable


@pytest.mark.parametrize(
    ("above", "below", "unreachable"),
    [
        ("allowlist: {role: [a]}", "max_per_cycle: 5", False),
        ("allowlist: {role: [a]}", "allowlist: {role: [a]}", True),
        ("when: {slots_used: 80%}", "max_per_cycle: 5", False),
        ("when: {slots_used: 80%}", "when: {slots_used: 90%}", True),
        ("when: {slots_used: 90%}", "when: {slots_used: 80%}", False),
        ("during: 08:00-09:00", "max_per_cycle: 5", False),
        ("during: 08:00-09:00", "during: 08:00-09:00", True),
        ("max_per_cycle: 5", "override_protections: [listeners]", False),
        ("override_protections: [listeners, poolers]", "override_protections: [listeners]", True),
        ("servers: {env: prod}", "max_per_cycle: 5", False),
        ("servers: {env: prod}", "servers: {env: prod}", True),
        ("servers: {env: prod}", "servers: {env: prod, team: shop}", True),
        ("servers: {env: prod, team: shop}", "servers: {env: prod}", False),
        ("servers: {env: [prod, test]}", "servers: {env: prod}", True),
        # No server of the file has another env; one that comes by a reload may.
        ("servers: {env: prod}", "servers: {env: [prod, test]}", False),
        ("max_per_cycle: 5", "servers: {env: prod}", True),
        # A session that a limit skips is not handed to the next policy.
        ("keep: {newest: 1, per: [role]}", "max_per_cycle: 5", True),
        ("max_sessions: {count: 1, per: [role]}", "max_per_cycle: 5", True),
    ],
)
def test_a_policy_below_one_that_acts_less_often_is_reachable(
    above: str, below: str, *, unreachable: bool
) -> None:
    assert is_unreachable(USUAL, USUAL, above=above, below=below) is unreachable
