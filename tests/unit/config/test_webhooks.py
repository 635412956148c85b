"""Where the URLs of webhooks come from, and that they go nowhere else."""

from pathlib import Path

import pytest

from reaper.config import BadPolicyFile, Settings, load

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


def test_what_is_in_the_environment_is_never_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_URL", "hooks.example.com/hunter2")
    with pytest.raises(BadPolicyFile, match="the value of this environment variable does not") as refused:
        notify(tmp_path, "webhook_env: OPS_URL")
    assert "hunter2" not in str(refused.value) + repr(refused.value)


def test_nothing_that_shows_settings_shows_a_url(tmp_path: Path) -> None:
    assert "hunter2" not in repr(notify(tmp_path, f'webhook: "{URL}"'))


@pytest.mark.parametrize(
    "url", ["http://chat", "https://[::1]:8443/x", "HTTPS://chat.example.com/a?b=c#d", "http://10.0.0.1:80"]
)
def test_what_http_can_reach_is_a_url(tmp_path: Path, url: str) -> None:
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
def test_what_http_cannot_reach_is_no_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadPolicyFile, match=r"notify\[0\]\.webhook: the URL "):
        notify(tmp_path, f'webhook: "{url}"')
