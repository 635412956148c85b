"""Servers and webhooks, from the policy file and from files beside it, and the servers of each policy."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reaper.config import BadPolicyFile, Server, Settings, files, load, read

Tree = dict[str, str]
Loading = Callable[[str, Tree], Settings]
LEAST = "policies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"
LABELLED = """
version: 1
servers:
  - {name: a, labels: {env: prod, team: shop}}
  - {name: b, labels: {env: test}}
  - {name: c}
policies:
  - {name: everywhere, match: {state: idle, idle_for: 1h}}
  - {name: prod, servers: {env: prod}, match: {state: idle, idle_for: 10m}}
  - {name: both, servers: {env: [prod, test]}, match: {state: idle, idle_for: 5m}}
  - {name: shop-in-prod, servers: {env: prod, team: shop}, match: {state: idle in transaction, idle_for: 1m}}
"""


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
def test_a_policy_applies_to_servers_with_all_of_its_labels(labels: dict[str, str], names: list[str]) -> None:
    settings = read(LABELLED.encode(), file="x")
    rules = settings.rules_for(Server(name="x", dsn="", labels=tuple(sorted(labels.items()))))
    assert [policy.name for policy in rules.policies] == names
    assert (rules.protect, rules.digest) == (settings.rules.protect, settings.rules.digest)


def test_a_mistake_in_the_servers_is_not_repeated_for_the_labels() -> None:
    with pytest.raises(BadPolicyFile) as bad:
        read(LABELLED.replace("{name: c}", "{name: 1}").encode(), file="x")
    assert [mistake.where for mistake in bad.value.mistakes] == ["servers[2].name"]


def test_labels_are_not_doubted_while_no_server_is_known() -> None:
    start, end = LABELLED.index("servers:"), LABELLED.index("policies:")
    text = f"{LABELLED[:start]}servers_from: no-such-folder/*.yaml\n{LABELLED[end:]}"
    assert [warning.where for warning in read(text.encode(), file="x").warnings] == ["servers_from"]


@pytest.fixture
def load_with(tmp_path: Path) -> Loading:
    """Load a policy file with these first lines, beside these files."""

    def load_it(head: str, tree: Tree) -> Settings:
        for name, content in {"policies.yaml": f"version: 1\n{head}\n{LEAST}", **tree}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        return load(tmp_path / "policies.yaml")

    return load_it


def names(settings: Settings) -> list[str]:
    assert settings.warnings == ()
    return [server.name for server in settings.servers]


def test_servers_come_in_the_order_of_the_files_after_those_of_the_policy_file(load_with: Loading) -> None:
    settings = load_with(
        "servers_from: servers.d/*.yaml\nservers: [{name: own}]",
        {
            "servers.d/b.yaml": "- name: d\n- name: c\n",
            "servers.d/a.yaml": "- {name: b, dsn: host=db-2, labels: {env: prod}}\n",
            "servers.d/c.yaml": "[]\n",
        },
    )
    assert names(settings) == ["own", "b", "d", "c"]
    assert settings.servers[1] == Server(name="b", dsn="host=db-2", labels=(("env", "prod"),))


def test_a_file_that_two_patterns_match_is_read_once(load_with: Loading) -> None:
    tree = {"servers.d/a.yaml": "- name: a\n", "servers.d/b.yaml": "- name: b\n"}
    assert names(load_with("servers_from: [servers.d/*.yaml, servers.d/a*.yaml]", tree)) == ["a", "b"]


def test_patterns_are_relative_to_the_policy_file_whose_folder_is_taken_literally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "[a-z]*?"
    folder.mkdir()
    (folder / "policies.yaml").write_text(f"version: 1\nservers_from: s-*.json\n{LEAST}", encoding="utf-8")
    (folder / "s-1.json").write_text('[{"name": "a", "labels": {"env": "prod"}}]', encoding="utf-8")
    settings = load(folder / "policies.yaml")
    assert names(settings) == ["a"]
    assert settings.servers_from == (f"{folder}/s-*.json",)
    monkeypatch.chdir(folder)
    assert names(load(Path("policies.yaml"))) == ["a"]


def test_hidden_files_are_not_read(load_with: Loading) -> None:
    """A mounted ConfigMap keeps its files in hidden folders, and editors leave hidden files behind."""
    tree = {"d/a.yaml": "- name: a\n", "d/.a.yaml": "torn: [", "d/..data.yaml/x.yaml": "torn: ["}
    assert names(load_with("servers_from: d/*.yaml", tree)) == ["a"]


def test_a_file_that_is_deleted_after_it_was_listed_is_skipped(
    load_with: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    matching = files.matching
    monkeypatch.setattr(files, "matching", lambda glob: [*matching(glob), glob.replace("*", "gone")])
    assert names(load_with("servers_from: servers.d/*.yaml", {"servers.d/a.yaml": "- name: a\n"})) == ["a"]


def test_a_dangling_link_is_skipped_and_reported(load_with: Loading, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("nowhere")
    settings = load_with("servers_from: '[ab].yaml'", {"b.yaml": "- name: b\n"})
    assert [server.name for server in settings.servers] == ["b"]
    message = "the link points to nothing, so no server is read from it; correct the link, or delete it"
    assert [str(warning) for warning in settings.warnings] == [f"{tmp_path}/a.yaml:1:1: file: {message}"]


def test_a_pipe_a_folder_and_a_device_are_refused_without_waiting(load_with: Loading, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    with pytest.raises(BadPolicyFile) as bad:
        load_with("servers_from: [pipe.yaml, folder.yaml, device.yaml]", {})
    assert [(Path(mistake.file).name, mistake.what) for mistake in bad.value.mistakes] == [
        ("device.yaml", "the file cannot be read: Not a regular file"),
        ("folder.yaml", "the file cannot be read: Is a directory"),
        ("pipe.yaml", "the file cannot be read: Not a regular file"),
    ]


def test_a_folder_that_cannot_be_listed_is_a_mistake(load_with: Loading, tmp_path: Path) -> None:
    """A link to itself stands for a folder without a permission, which the superuser would not miss."""
    loop = tmp_path / "servers.d"
    loop.symlink_to(loop)
    with pytest.raises(BadPolicyFile, match="the folder cannot be read: Too many levels of symbolic links; "):
        load_with("servers_from: servers.d/*.yaml", {})


def test_a_generated_list_may_be_long(load_with: Loading) -> None:
    servers = "".join(f"- name: s{number}\n" for number in range(1_500))
    assert len(load_with("servers_from: a.yaml", {"a.yaml": servers}).servers) == 1_500


def test_the_digest_of_the_rules_is_of_the_policy_file_alone(load_with: Loading) -> None:
    """Servers change no rule, so audit logs before and after stay comparable."""
    before = load_with("servers_from: a.yaml", {"a.yaml": "- name: a\n"})
    after = load_with("servers_from: a.yaml", {"a.yaml": "- name: b\n"})
    assert before.rules == after.rules
    assert before != after


URL = "https://hooks.example.com/services/hunter2"


def notify(folder: Path, entry: str) -> Settings:
    policies = "policies: [{name: a, match: {state: [idle], idle_for: 1m}}]"
    text = f"version: 1\nnotify: [{{name: ops, {entry}}}]\n{policies}\n"
    (folder / "policies.yaml").write_text(text, encoding="utf-8")
    return load(folder / "policies.yaml")


def test_a_mounted_secret_may_end_with_a_line_break(tmp_path: Path) -> None:
    (tmp_path / "ops-url").write_text(f"\n {URL}\r\n", encoding="utf-8")
    settings = notify(tmp_path, "webhook_file: ops-url")
    assert [webhook.url for webhook in settings.notify] == [URL]
    assert settings.secrets == (f"{tmp_path}/ops-url",)
    assert settings.notify == notify(tmp_path, f"webhook_file: {tmp_path}/ops-url").notify


def test_a_url_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_URL", f"{URL}\n")
    assert [webhook.url for webhook in notify(tmp_path, "webhook_env: OPS_URL").notify] == [URL]
    monkeypatch.setenv("OPS_URL", " ")
    with pytest.raises(BadPolicyFile, match="this environment variable is not set"):
        notify(tmp_path, "webhook_env: OPS_URL")


def test_no_message_repeats_a_value_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_URL", "hooks.example.com/hunter2")
    with pytest.raises(BadPolicyFile, match="the value of this environment variable does not") as refused:
        notify(tmp_path, "webhook_env: OPS_URL")
    assert "hunter2" not in str(refused.value) + repr(refused.value)


def test_the_text_of_settings_contains_no_url(tmp_path: Path) -> None:
    assert "hunter2" not in repr(notify(tmp_path, f'webhook: "{URL}"'))


@pytest.mark.parametrize(
    "url", ["http://chat", "https://[::1]:8443/x", "HTTPS://chat.example.com/a?b=c#d", "http://10.0.0.1:80"]
)
def test_a_valid_url_is_accepted(tmp_path: Path, url: str) -> None:
    settings = notify(tmp_path, f'webhook: "{url}"')
    assert [webhook.url for webhook in settings.notify] == [url]
    assert settings.warnings == ()


@pytest.mark.parametrize(
    "url",
    [
        "chat",
        "//chat/x",
        "http:chat",
        "http://",
        "http://:80/x",
        "http://a:99999",
        "http://[::1",
        "http://ä/",
    ],
)
def test_an_invalid_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadPolicyFile, match=r"notify\[0\]\.webhook: the URL "):
        notify(tmp_path, f'webhook: "{url}"')
