"""The schema for editors, and policies.yaml, which shows every key."""

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from reaper.config import load
from reaper.config.model import json_schema
from reaper.policy.protections import OVERRIDABLE
from reaper.policy.rules import Mode

HERE = Path(__file__).parent
BAD = HERE / "bad"
TOP = Path(__file__).parents[3]

UNSEEN = frozenset(
    {
        *("active-beside-others", "active-without-running-for", "active-idle-for"),
        *("running-for-an-idle-session", "transaction-of-an-idle-session", "cancel-of-an-idle-session"),
        *("max-sessions-without-idle-for", "max-sessions-of-active-sessions"),
        *("match-of-every-session", "allowlist-of-every-session", "protect-every-session"),
        *("duplicate-key", "duplicate-policy", "duplicate-server"),
        *("glob-too-long", "name-too-long-to-match", "glob-with-a-character-class"),
        *("glob-of-another-language", "glob-with-an-empty-range", "glob-with-an-unclosed-bracket"),
        *("network-with-host-bits", "network-with-a-netmask", "network-mapped-to-ipv6"),
        *("host-name-as-a-network", "address-with-a-scope"),
        *("password-in-a-dsn", "password-in-a-uri", "password-percent-encoded", "password-of-a-key"),
        *("password-in-a-broken-dsn", "secret-of-scram", "dsn-that-libpq-cannot-read"),
        *("dsn-with-an-unknown-key", "dsn-with-an-application-name"),
        *("duration-of-zero", "duration-too-long", "interval-too-short", "interval-too-long"),
        *("min-interval-too-short", "min-interval-above-interval", "refill-guard-with-a-long-first-pause"),
        *("unknown-time-zone", "time-zone-like-no-other", "window-that-ends-when-it-begins"),
        *("files-with-an-unclosed-bracket", "policy-servers-without-servers", "duplicate-webhook"),
        *("webhook-without-a-host", "webhook-with-a-bad-port", "webhook-with-a-user", "messages-too-often"),
        *("webhook-in-a-missing-file", "webhook-in-a-folder", "webhook-in-a-bad-file"),
        "webhook-in-an-unset-variable",
        *("merge-key", "odd-key", "escaped-nul", "half-a-surrogate"),
        # Where editors read YAML 1.2, these are the words that they seem to be.
        *("boolean-as-a-policy-name", "date-as-a-name"),
    }
)


class Editor(yaml.SafeLoader):
    """YAML as editors read it: of all the words for truth, only true and false."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to say it
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if (tag.rpartition(":")[2] != "bool" or first in "tTfF") and not tag.endswith(":timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def in_an_editor(path: Path) -> None:
    Draft202012Validator(json_schema()).validate(yaml.load(path.read_bytes(), Loader=Editor))  # noqa: S506 - safe


def seen() -> list[object]:
    return [
        pytest.param(path, id=path.stem) for path in sorted(BAD.glob("*.yaml")) if path.stem not in UNSEEN
    ]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())
    assert "$id" not in json_schema()


@pytest.mark.parametrize("path", [TOP / "policies.yaml", HERE / "mended.yaml"], ids=lambda path: path.stem)
def test_a_good_file_is_good_in_an_editor(path: Path) -> None:
    in_an_editor(path)


@pytest.mark.parametrize("path", seen())
def test_an_editor_marks_every_mistake_that_a_schema_can_see(path: Path) -> None:
    with pytest.raises((ValidationError, yaml.YAMLError, ValueError, OverflowError)):
        in_an_editor(path)


def test_the_mistakes_beyond_a_schema_exist() -> None:
    assert {name for name in UNSEEN if not (BAD / f"{name}.yaml").exists()} == set()


def test_every_key_is_described_and_nothing_may_be_null() -> None:
    pending: list[object] = [json_schema()]
    keys = 0
    while pending:
        here = pending.pop()
        if isinstance(here, dict):
            assert here.get("type") != "null"
            for key in here.get("properties", {}):
                assert here["properties"][key]["description"], key
                keys += 1
            pending.extend(here.values())
        elif isinstance(here, list):
            pending.extend(here)
    assert keys > 30


def test_editors_complete_the_names_of_the_protections() -> None:
    definitions = json_schema()["$defs"]
    assert isinstance(definitions, dict)
    assert definitions["PolicySection"]["properties"]["override_protections"]["anyOf"][0]["enum"] == list(
        OVERRIDABLE
    )


SHIPPED = TOP / "policies.yaml"


def switched_on() -> str:
    """The file with the keys behind a # without a space."""
    return re.sub("^#(?=[^ \n])", "", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_policies_yaml_is_valid_and_enforces_nothing() -> None:
    settings = load(SHIPPED)
    assert settings.warnings == ()
    assert settings.rules.policies
    assert all(policy.mode is not Mode.ENFORCE for policy in settings.rules.policies)


def test_policies_yaml_names_its_schema() -> None:
    first = SHIPPED.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=./policies.schema.json")
    assert "reaper schema > policies.schema.json" in first


def test_policies_yaml_shows_every_key() -> None:
    definitions = json_schema()["$defs"]
    assert isinstance(definitions, dict)
    keys = {key for part in (json_schema(), *definitions.values()) for key in part["properties"]}
    code = [line.partition(" #")[0] for line in switched_on().splitlines()]
    words = set(re.findall(r"(\w+):", "\n".join(line for line in code if not line.startswith("#"))))
    assert keys - words == set()


def test_the_optional_keys_of_policies_yaml_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ON_CALL_URL", "https://chat.example.com/hooks/on-call")
    for name, content in {
        "policies.yaml": switched_on(),
        "servers.d/more.yaml": "- name: billing\n  dsn: host=db-2.internal\n",
        "secrets/ops-url": "https://chat.example.com/hooks/ops\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    settings = load(tmp_path / "policies.yaml")
    assert settings.warnings == ()
    assert [server.name for server in settings.servers] == ["orders", "billing"]
    assert [webhook.name for webhook in settings.notify] == ["ops", "on-call", "chat"]


def test_policies_yaml_fits_a_terminal() -> None:
    assert max(map(len, SHIPPED.read_text(encoding="utf-8").splitlines())) <= 120
