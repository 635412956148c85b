"""What a pod is told is what the command understands, and nothing is granted that it does not need."""

import posixpath
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from reaper import __version__
from reaper.cli.app import reaper
from reaper.service.fleet import Shard
from reaper.telemetry.http.routes import Health, application
from reaper.telemetry.metrics.collect import Metrics

HERE: Final = Path(__file__).parents[3] / "deploy" / "kubernetes"
LABELS: Final = {"app.kubernetes.io/name": "pg-reaper"}
PODS: Final = {
    "deployment": "base/deployment.yaml",
    "fleet": "overlays/fleet/statefulset.yaml",
    "cronjob": "cronjob/cronjob.yaml",
}
SERVICES: Final = ("deployment", "fleet")
# Read by libpq and by Kubernetes itself.
NOT_OURS: Final = {"PGSERVICEFILE", "POD_NAME"}
every_pod = pytest.mark.parametrize("which", PODS)
every_service = pytest.mark.parametrize("which", SERVICES)


def manifest(file: str) -> dict[str, Any]:
    found = yaml.safe_load((HERE / file).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def workload(which: str) -> dict[str, Any]:
    found = manifest(PODS[which])
    return found["spec"]["jobTemplate"] if found["kind"] == "CronJob" else found


def template(which: str) -> dict[str, Any]:
    return workload(which)["spec"]["template"]  # type: ignore[no-any-return]


def pod(which: str) -> dict[str, Any]:
    return template(which)["spec"]  # type: ignore[no-any-return]


def container(which: str) -> dict[str, Any]:
    (found,) = pod(which)["containers"]
    assert isinstance(found, dict)
    return found


def environment(which: str, *, pod_name: str = "reaper-0") -> dict[str, str]:
    env = {each["name"]: each.get("value", pod_name) for each in container(which)["env"]}
    return {name: value.replace("$(POD_NAME)", pod_name) for name, value in env.items()}


def understood(args: list[str], env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command makes of these arguments and variables, without running it."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    command = reaper.get_command(click.Context(reaper), args[0])
    assert command
    return command.make_context(args[0], args[1:]).params


def variables(command: str) -> set[str]:
    found = reaper.get_command(click.Context(reaper), command)
    assert found
    return {
        str(option.envvar) for option in found.params if isinstance(option, click.Option) and option.envvar
    }


def pages() -> set[str]:
    def fine() -> Health:
        return Health(good=True, reasons={})

    served = application(metrics=Metrics(__version__), livez=fine, readyz=fine)
    return {getattr(route, "path", "") for route in getattr(served, "routes", [])}


def port(which: str) -> int:
    (found,) = container(which)["ports"]
    assert found["name"] == "metrics"
    return int(found["containerPort"])


@every_pod
def test_a_pod_sets_only_variables_that_the_command_reads(which: str) -> None:
    assert environment(which).keys() - NOT_OURS <= variables(container(which)["args"][0])


def test_the_overlay_that_rehearses_sets_only_variables_that_the_command_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch = manifest("overlays/dry-run/dry-run.yaml")
    (patched,) = patch["spec"]["template"]["spec"]["containers"]
    assert patched["name"] == container("deployment")["name"]
    env = {each["name"]: each["value"] for each in patched["env"]}
    assert understood(["run"], env, monkeypatch)["dry_run"] is True


@every_pod
def test_the_command_understands_what_a_pod_is_told(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = understood(container(which)["args"], environment(which), monkeypatch)
    assert told["log_format"] == "json"
    assert told["audit_log"] == ("-",)
    assert told["dry_run"] is False


@every_pod
def test_the_policy_file_and_the_service_file_are_where_they_are_mounted(which: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(which)["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container(which)["volumeMounts"]}
    policies = mounts[posixpath.dirname(environment(which)["REAPER_POLICIES"])]
    folder, file = posixpath.split(environment(which)["PGSERVICEFILE"])
    logins = volumes[mounts[folder]["name"]]["secret"]
    secret = manifest("secret.example.yaml")
    assert "reaper-policies" in str(volumes[policies["name"]])
    assert logins["secretName"] == secret["metadata"]["name"]
    assert {file, "ca.crt"} == secret["stringData"].keys()
    assert f"sslrootcert={folder}/ca.crt" in secret["stringData"][file]
    assert all(mount["readOnly"] and "subPath" not in mount for mount in mounts.values())


@every_service
def test_probes_ask_for_pages_that_are_served(which: str) -> None:
    probes = {
        kind: container(which)[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")
    }
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    assert {probe["path"] for probe in probes.values()} <= pages()


@every_service
def test_everybody_means_the_same_port(which: str) -> None:
    rules = manifest("base/networkpolicy.yaml")["spec"]["ingress"]
    assert environment(which)["REAPER_LISTEN"] == f"0.0.0.0:{port(which)}"
    assert template(which)["metadata"]["annotations"]["prometheus.io/port"] == str(port(which))
    assert [each["port"] for rule in rules for each in rule["ports"]] == ["metrics"]
    (service,) = manifest("overlays/fleet/service.yaml")["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (port(which), "metrics")


@every_pod
def test_a_pod_is_granted_nothing(which: str) -> None:
    assert container(which)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    confined = pod(which)["securityContext"]
    assert confined["runAsNonRoot"] is True
    assert min(confined["runAsUser"], confined["runAsGroup"], confined["fsGroup"]) > 0
    assert confined["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(which)["automountServiceAccountToken"] is False
    assert pod(which).keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"})


def test_the_account_carries_no_token() -> None:
    account = manifest("base/serviceaccount.yaml")
    assert account["automountServiceAccountToken"] is False
    assert {pod(which)["serviceAccountName"] for which in PODS} == {account["metadata"]["name"]}


@every_pod
def test_a_pod_says_what_it_needs_and_is_held_to_memory_only(which: str) -> None:
    resources = container(which)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"].keys() == {"memory"}


@every_pod
def test_everything_is_found_by_the_same_label(which: str) -> None:
    assert template(which)["metadata"]["labels"] == LABELS
    selectors = [
        manifest("base/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        manifest("base/poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        manifest("overlays/fleet/service.yaml")["spec"]["selector"],
        *(workload(service)["spec"]["selector"]["matchLabels"] for service in SERVICES),
        *(each["labelSelector"]["matchLabels"] for each in pod(which).get("topologySpreadConstraints", [])),
    ]
    assert all(selector == LABELS for selector in selectors)


def test_the_fleet_has_the_pod_of_the_deployment_but_for_its_share_and_its_lists() -> None:
    base, fleet = template("deployment"), template("fleet")
    ours = fleet["spec"]["containers"][0]
    ours["env"] = [each for each in ours["env"] if each["name"] not in {"POD_NAME", "REAPER_SHARD"}]
    ours["resources"] = base["spec"]["containers"][0]["resources"]
    fleet["spec"]["volumes"][0] = base["spec"]["volumes"][0]
    assert fleet == base


def test_the_cronjob_has_the_pod_of_the_deployment_but_for_what_only_a_service_has() -> None:
    base, cron = pod("deployment"), pod("cronjob")
    assert cron.pop("restartPolicy") == "Never"
    del base["topologySpreadConstraints"]
    (service,) = base["containers"]
    for key in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
        del service[key]
    service["args"] = ["once"]
    service["env"] = [each for each in service["env"] if each["name"] != "REAPER_LISTEN"]
    assert cron == base


def test_the_pods_of_the_fleet_have_all_shares_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    count = workload("fleet")["spec"]["replicas"]
    shares = [
        understood(["run"], environment("fleet", pod_name=f"reaper-{ordinal}"), monkeypatch)["shard"]
        for ordinal in range(count)
    ]
    assert [Shard.parse(share) for share in shares] == [Shard(index, count) for index in range(count)]


def test_one_run_at_a_time_and_no_second_try() -> None:
    assert manifest(PODS["cronjob"])["spec"]["concurrencyPolicy"] == "Forbid"
    assert workload("cronjob")["spec"]["backoffLimit"] == 0


@every_pod
def test_the_image_is_of_this_version_and_of_nobody_by_mistake(which: str) -> None:
    assert container(which)["image"] == f"registry.example.com/pg-reaper:{__version__}"
