"""Which policies concern which servers."""

import pytest

from reaper.config import BadPolicyFile, Server, Settings, read

POLICIES = """
version: 1
servers:
  - {name: a, labels: {env: prod, team: shop}}
  - {name: b, labels: {env: test}}
  - {name: c}
policies:
  - {name: everywhere, match: {state: [idle], idle_for: 1h}}
  - {name: prod, servers: {env: prod}, match: {state: [idle], idle_for: 10m}}
  - {name: both, servers: {env: [prod, test]}, match: {state: [idle], idle_for: 5m}}
  - {name: shop-in-prod, servers: {env: prod, team: shop}, match: {state: idle in transaction, idle_for: 1m}}
"""


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read(POLICIES.encode(), file="x")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({}, ["everywhere"]),
        ({"env": "prod"}, ["everywhere", "prod", "both"]),
        ({"env": "test", "team": "shop"}, ["everywhere", "both"]),
        ({"env": "prod", "team": "shop", "x": ""}, ["everywhere", "prod", "both", "shop-in-prod"]),
        ({"env": "Prod"}, ["everywhere"]),
        ({"team": "shop"}, ["everywhere"]),
    ],
)
def test_a_policy_concerns_the_servers_that_have_all_of_its_labels(
    settings: Settings, labels: dict[str, str], names: list[str]
) -> None:
    server = Server(name="x", dsn="", labels=tuple(sorted(labels.items())))
    rules = settings.rules_for(server)
    assert [policy.name for policy in rules.policies] == names
    assert (rules.protect, rules.digest) == (settings.rules.protect, settings.rules.digest)


def test_a_file_whose_policies_concern_every_server_has_one_set_of_rules() -> None:
    text = b"version: 1\nservers: [{name: a}]\npolicies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"
    settings = read(text, file="x")
    assert settings.rules_for(settings.servers[0]) is settings.rules


def test_a_server_can_be_told_from_others_in_a_set(settings: Settings) -> None:
    assert len({*settings.servers, *settings.servers}) == 3


def test_labels_are_sorted_whatever_their_order_in_the_file(settings: Settings) -> None:
    other = POLICIES.replace("env: prod, team: shop", "team: shop, env: prod")
    assert other != POLICIES
    assert read(other.encode(), file="x").servers == settings.servers


def test_what_follows_from_a_mistake_in_the_servers_is_not_told_of_only() -> None:
    text = POLICIES.replace("{name: c}", "{name: 1}")
    with pytest.raises(BadPolicyFile) as refused:
        read(text.encode(), file="x")
    assert [mistake.where for mistake in refused.value.mistakes] == ["servers[2].name"]


def test_where_no_server_is_known_no_policy_is_said_to_fit_none() -> None:
    start, end = POLICIES.index("servers:"), POLICIES.index("policies:")
    text = f"{POLICIES[:start]}servers_from: no-such-folder/*.yaml\n{POLICIES[end:]}"
    assert [warning.where for warning in read(text.encode(), file="x").warnings] == ["servers_from"]
