import re
from pathlib import Path

import pytest

from reaper.config import Settings, load
from reaper.config.model import json_schema
from reaper.policy.rules import Mode

SHIPPED = Path(__file__).parents[3] / "policies.yaml"


def switched_on() -> str:
    """The tour with the keys that it shows behind a # without a space."""
    return re.sub("^#(?=[^ \n])", "", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load(SHIPPED)


def test_the_tour_is_harmless(settings: Settings) -> None:
    assert settings.rules.policies
    assert all(policy.mode is not Mode.ENFORCE for policy in settings.rules.policies)


def test_the_tour_gives_no_reason_to_warn(settings: Settings) -> None:
    assert settings.warnings == ()


def test_the_tour_names_its_schema_in_the_first_line() -> None:
    first = SHIPPED.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=./policies.schema.json")
    assert "reaper schema > policies.schema.json" in first


def test_the_tour_shows_every_key() -> None:
    definitions = json_schema()["$defs"]
    assert isinstance(definitions, dict)
    keys = {key for part in (json_schema(), *definitions.values()) for key in part["properties"]}
    code = [line.partition(" #")[0] for line in switched_on().splitlines()]
    words = set(re.findall(r"(\w+):", "\n".join(line for line in code if not line.startswith("#"))))
    assert keys - words == set()


def test_what_the_tour_switches_off_is_in_order_once_it_is_switched_on(
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


def test_the_tour_fits_a_terminal() -> None:
    assert max(map(len, SHIPPED.read_text(encoding="utf-8").splitlines())) <= 120
