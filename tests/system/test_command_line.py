"""The command line itself: help, options, environment, completion, exit codes."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest
import yaml
from jsonschema import Draft202012Validator

from reaper.cli.app import reaper as root
from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role

from .command import Reaper, find
from .policies import FILE, leaked, policy_file

SHIPPED: Final = Path(__file__).parents[2] / "policies.yaml"
COMMANDS: Final = root.list_commands(click.Context(root))


class AsEditorsRead(yaml.SafeLoader):
    """YAML 1.2, in which `off` is a word and no truth value."""


AsEditorsRead.yaml_implicit_resolvers = {
    letter: [each for each in found if letter in "tTfF" or each[0] != "tag:yaml.org,2002:bool"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def command(name: str) -> click.Command:
    found = root.get_command(click.Context(root), name)
    assert found
    return found


def options() -> Iterator[tuple[str, click.Option]]:
    """Every option of every command, with the name of its command."""
    for name in COMMANDS:
        for parameter in command(name).params:
            if isinstance(parameter, click.Option):
                yield name, parameter


OPTIONS: Final = [pytest.param(option, id=f"{name} {option.opts[0]}") for name, option in options()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_is_for(offline: Reaper, name: str) -> None:
    for way in ("--help", "-h"):
        done = offline(name, way)

        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"Usage: reaper {name} [OPTIONS]")
        assert "\\b" not in done.out


def test_the_list_of_commands_shows_each_purpose_whole(offline: Reaper) -> None:
    done = offline("--help")

    listed = done.out[done.out.index("Look:") : done.out.index("Exit codes")].splitlines()
    commands = [line for line in listed if line.startswith("  ") and line.strip()]
    assert [line.split()[0] for line in commands] == COMMANDS
    assert [line for line in commands if not line.endswith(".") or line.endswith("...")] == []
    assert max(map(len, commands)) < 80
    assert "Exit codes: 0 fine, 1 a problem was found, 2 usage or configuration" in done.out


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (["--help"], {"reaper.cli.run", "psycopg", "pydantic", "rich", "yaml"}),
        (["check", "--offline"], {"reaper.service", "starlette", "structlog"}),
    ],
)
def test_what_a_command_does_not_need_is_not_loaded(
    offline: Reaper, words: list[str], without: set[str]
) -> None:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))

    done = offline(*words, PYTHONPROFILEIMPORTTIME="1")

    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert (done.code, "reaper.cli" in loaded) == (0, True)
    assert without & loaded == set()


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_has_help_and_shows_its_environment_variable(option: click.Option) -> None:
    assert option.help
    assert option.help.endswith((".", "?"))
    if option.envvar is not None:
        assert str(option.envvar).startswith("REAPER_")
        assert option.show_envvar


def test_an_environment_variable_means_the_same_in_every_command() -> None:
    meanings = dict[str, set[str]]()
    for _, option in options():
        # `history --to DIR --every 10s` is `run --history DIR --history-every 10s`.
        name = option.opts[0].replace("--history-", "--").replace("--to", "--history")
        if option.envvar is not None:
            meanings.setdefault(str(option.envvar), set()).add(name)

    assert {name: opts for name, opts in meanings.items() if len(opts) > 1} == {}


def test_options_can_be_given_by_environment_variable(reaper: Reaper, app: Role, clients: Clients) -> None:
    leak = clients.open(role=app, application="leak")
    elsewhere = reaper.write("elsewhere.yaml", policy_file(leaked(app, idle_for="1ms")))
    policies = {"REAPER_CONFIG": str(elsewhere)}
    (reaper.folder / "seen.json").write_text(reaper("snapshot").out, encoding="ascii")
    seen = ("--snapshot", "seen.json")

    assert reaper("plan").code == 2
    assert reaper("plan", **policies).code == 0
    (decision,) = reaper("plan", *seen, "--json", **policies).document["decisions"]
    assert decision["pid"] == leak.pid
    assert reaper("explain", str(leak.pid), *seen, "-o", "yaml", **policies).out.startswith("server: ")
    assert reaper("check", "--offline", **policies).out.endswith("OK\n")
    done = reaper(
        "once",
        **policies,
        REAPER_DRY_RUN="yes",
        REAPER_AUDIT_LOG="- audit.jsonl",
        REAPER_LOG_LEVEL="error",
        REAPER_LOG_FORMAT="human",
        REAPER_WITH_QUERY_TEXT="1",
    )
    assert (done.code, done.err) == (0, "")
    assert leak.present()
    assert [event["outcome"] for event in done.events if "outcome" in event] == ["dry-run"]
    assert [event["query"] for event in reaper.record() if "outcome" in event] != []
    assert reaper("audit", "--by", "policy", REAPER_AUDIT_LOG="audit.jsonl").code == 0


def test_what_the_environment_sets_for_the_service_changes_no_other_command(offline: Reaper) -> None:
    """An exported REAPER_HISTORY must not make `backtest` or `advise` read old files."""
    for name in ("advise", "backtest", "assess", "audit", "usage"):
        variables = {str(option.envvar) for shown, option in options() if shown == name and option.envvar}
        assert variables <= {"REAPER_CONFIG", "REAPER_DSN", "REAPER_SERVER"}
    assert offline("backtest", REAPER_HISTORY=str(offline.folder)).code == 2


def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(offline: Reaper) -> None:
    done = offline("usgae")

    assert (done.code, done.out) == (2, "")
    assert "No such command 'usgae'. Did you mean 'usage'?" in done.err


def test_json_is_short_for_output_json(offline: Reaper) -> None:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))

    for name in COMMANDS:
        output = [option for shown, option in options() if shown == name and "--output" in option.opts]
        assert bool(output) == any("--json" in option.opts for shown, option in options() if shown == name)
    assert json.loads(offline("check", "--offline", "--json").out)


def test_a_server_is_chosen_by_its_name(offline: Reaper) -> None:
    servers = [{"name": name, "dsn": f"host=127.0.0.1 port=1 dbname={name}"} for name in ("one", "two")]
    offline.write(FILE, policy_file(leaked(Role("app", "")), servers=servers))

    unsaid = offline("plan")
    unknown = offline("plan", "--server", "three")
    chosen = offline("plan", REAPER_SERVER="two")
    both = offline("plan", "--dsn", "host=127.0.0.1")

    assert (unsaid.code, unsaid.err) == (
        2,
        "the policy file names one, two\nhint: choose one with --server NAME\n",
    )
    assert (unknown.code, unknown.err) == (
        2,
        "--server three: no such server in the policy file; it names one, two\n",
    )
    assert chosen.code == 3
    assert chosen.err.startswith("two: ")
    assert both.code == 2


@pytest.mark.parametrize(
    "wrong", [["nonsense"], ["plan", "--nonsense"], ["explain"], ["explain", "me"], ["plan", "-o", "xml"]]
)
def test_wrong_usage_is_2(offline: Reaper, wrong: list[str]) -> None:
    done = offline(*wrong)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: reaper")


def test_its_version_is_the_one_that_was_installed(offline: Reaper) -> None:
    done = offline("--version")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("reaper, version ")
    assert offline("-V").out == done.out


def test_the_schema_is_one_and_the_shipped_file_follows_it(offline: Reaper) -> None:
    schema = offline("schema").document

    Draft202012Validator.check_schema(schema)
    document = yaml.load(SHIPPED.read_text(encoding="utf-8"), Loader=AsEditorsRead)  # noqa: S506 (it is safe)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(document)] == []
    del document["policies"][0]["match"]["state"]
    assert not Draft202012Validator(schema).is_valid(document)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(offline: Reaper, shell: str) -> None:
    done = offline("completion", shell)

    assert (done.code, done.err) == (0, "")
    assert f"_REAPER_COMPLETE={shell}_complete" in done.out


def test_the_script_for_bash_is_bash_and_completes(offline: Reaper) -> None:
    script = offline("completion", "bash").out
    asked = f"""{script}
        complete -p reaper
        COMP_WORDS=(reaper pl) COMP_CWORD=1
        _reaper_completion reaper pl reaper
        echo "found: ${{COMPREPLY[*]}}"
    """
    done = subprocess.run(
        [find("bash"), "-eu"],
        input=asked,
        env=offline.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "found: plan"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("reaper ", {*COMMANDS}),
        ("reaper plan --out", {"--output"}),
        ("reaper plan --output ", {"table", "json", "yaml"}),
        ("reaper run --log-level d", {"debug"}),
        ("reaper completion f", {"fish"}),
    ],
)
def test_words_are_completed(offline: Reaper, words: str, found: set[str]) -> None:
    done = offline(_REAPER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))

    assert {line.partition(",")[2] for line in done.out.splitlines()} == found


def test_everything_works_without_an_index_of_the_environment(offline: Reaper) -> None:
    offline.write(FILE, policy_file(leaked(Role("app", ""))))
    for name in ("HOME", "LC_ALL"):
        del offline.environment[name]

    assert offline("check", "--offline").code == 0
    assert json.loads(offline("check", "--offline", "-o", "json").out)
