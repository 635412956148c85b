"""How blocks are found in a README, and how they are run."""

from pathlib import Path
from typing import Final

import pytest

from .command import Reaper
from .policies import FILE
from .readme import blocks, whole_policy_file
from .shell import bash, clone, environment

TEXT: Final = """\
# A title

```sh
reaper plan   # what would be done
```

<!-- exit: 1 -->

```console
$ reaper explain 1
nobody
$ echo done
done
```

<!-- output -->
```console
$ echo done
done
```

````yaml
- name: x
```
````

<!-- exit: 2 -->
Some text in between.
```
no language
```
"""


def test_each_block_is_found_with_its_place_and_its_comments() -> None:
    found = blocks(TEXT)

    assert [(block.line, block.language, block.exit_code, block.output_matters) for block in found] == [
        (4, "sh", 0, False),
        (10, "console", 1, False),
        (18, "console", 0, True),
        (23, "yaml", 0, False),
        (30, "", 0, False),
    ]
    assert found[3].text == "- name: x\n```\n"
    assert found[0].label == "README-4-reaper-plan-what-would-be-done"


def test_of_a_console_only_what_stands_after_a_prompt_is_typed() -> None:
    console = blocks(TEXT)[1]

    assert console.script == "reaper explain 1\necho done\n"
    assert console.shown == "nobody\ndone\n"


def test_a_block_that_is_never_closed_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="```"):
        blocks("```sh\nreaper plan\n")


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\npolicies:\n  - name: whole\n    match: {state: [idle], idle_for: 1m, role: [app]}\n",
        "- name: part\n  match:\n    state: [idle]\n    idle_for: 1m\n    role: [app]\n",
        "interval: 30s\nprotect:\n  role: [admin]\n",
        "policies:\n  - name: headless\n    match: {state: [idle], idle_for: 1m, role: [app]}\n",
    ],
)
def test_a_part_of_a_policy_file_becomes_a_whole_one(offline: Reaper, text: str) -> None:
    offline.write(FILE, whole_policy_file(text))

    assert offline("check", "--offline", "--strict").code == 0


def test_commands_run_one_after_the_other_until_one_fails(tmp_path: Path) -> None:
    done = bash(
        "echo one\nfalse | cat\necho two", folder=tmp_path, environment=environment(tmp_path / "home")
    )

    assert (done.code, done.out) == (1, "one\n")


def test_a_daemon_is_stopped_when_it_has_reached_its_server_and_its_exit_code_counts(
    tmp_path: Path, reaper: Reaper
) -> None:
    reaper.write(FILE, whole_policy_file("interval: 1h\n"))
    asked = environment(tmp_path / "home", REAPER_DSN=reaper.environment["REAPER_DSN"])

    done = bash("reaper run --audit-log a.jsonl\necho $?", folder=tmp_path, environment=asked)

    assert (done.code, done.out) == (0, "0\n")
    first, *_, last = (event["event"] for event in reaper.record("a.jsonl"))
    assert (first, last) == ("audit.opened", "audit.closed")


def test_a_daemon_that_ends_by_itself_is_a_failure(tmp_path: Path) -> None:
    done = bash("reaper run\necho on", folder=tmp_path, environment=environment(tmp_path / "home"))

    assert (done.code, done.out) == (99, "")
    assert "policies.yaml:1:1" in done.err


def test_a_clone_holds_what_is_kept_and_nothing_else(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".venv").mkdir(parents=True)
    (checkout / ".venv" / "big").touch()
    (checkout / "deploy" / "deep").mkdir(parents=True)
    (checkout / "deploy" / "deep" / "file").touch()
    (checkout / "untracked").touch()

    without_git = clone(checkout, tmp_path / "one")
    init = "git init -q . && git add deploy"
    bash(init, folder=checkout, environment=environment(tmp_path / "home"))
    with_git = clone(checkout, tmp_path / "two")

    assert sorted(path.name for path in without_git.iterdir()) == ["deploy", "untracked"]
    assert [path.relative_to(with_git) for path in with_git.rglob("*") if path.is_file()] == [
        Path("deploy/deep/file")
    ]
