from pathlib import Path

import pytest

from reaper.config import Settings, load, schema
from reaper.policy.rules import Mode

SHIPPED = Path(__file__).parents[3] / "policies.yaml"


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
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    keys = {key for part in (schema(), *definitions.values()) for key in part["properties"]}
    code = [line.partition(" #")[0] for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    text = "\n".join(line for line in code if not line.startswith("#"))
    assert {key for key in keys if f"{key}:" not in text} == set()


def test_the_tour_fits_a_terminal() -> None:
    assert max(map(len, SHIPPED.read_text(encoding="utf-8").splitlines())) <= 120
