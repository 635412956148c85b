"""The manifests are valid and used, match what the command reads, and give a pod no rights."""

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import kubernetes_validate
import pytest
import yaml

from reaper import __version__
from reaper.cli.app import reaper
from reaper.config import load
from reaper.policy.rules import Mode
from reaper.service.fleet import Shard
from reaper.telemetry.http.routes import Health, application
from reaper.telemetry.metrics.collect import Metrics

HERE: Final = Path(__file__).parents[3] / "deploy" / "kubernetes"
SCHEMA: Final = "1.32"
SECRET: Final = HERE / "secret.example.yaml"
KUSTOMIZATIONS: Final = sorted(HERE.rglob("kustomization.yaml"))


def document(file: Path) -> dict[str, Any]:
    (found,) = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def files_of(file: Path, key: str) -> Iterator[Path]:
    """The files that a kustomization names under this key."""
    for named in document(file).get(key, []):
        name = named["path"] if isinstance(named, dict) else named
        yield (file.parent / name).resolve()


def generated_from(file: Path) -> Iterator[Path]:
    for generator in document(file).get("configMapGenerator", []):
        yield from ((file.parent / name).resolve() for name in generator["files"])


def resources(file: Path) -> list[Path]:
    """The manifests that a kustomization is made of, those of its bases included."""
    found = []
    for path in files_of(file, "resources"):
        found += resources(path / "kustomization.yaml") if path.is_dir() else [path]
    return found


MANIFESTS: Final = sorted({SECRET, *(path for file in KUSTOMIZATIONS for path in resources(file))})
PATCHES: Final = [(file, patch) for file in KUSTOMIZATIONS for patch in files_of(file, "patches")]
POLICIES: Final = sorted(
    path for file in KUSTOMIZATIONS for path in generated_from(file) if path.name == "policies.yaml"
)


def named(path: Path) -> str:
    return str(path.relative_to(HERE))


def identity(manifest: Mapping[str, Any]) -> tuple[str, str, str]:
    return manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]


@pytest.mark.parametrize("file", MANIFESTS, ids=named)
def test_a_manifest_fits_the_schema_of_its_kind_without_unknown_keys(file: Path) -> None:
    kubernetes_validate.validate(document(file), SCHEMA, strict=True)


def test_every_file_is_used() -> None:
    used = {SECRET, *KUSTOMIZATIONS, *MANIFESTS, *(patch for _, patch in PATCHES)}
    used.update(path for file in KUSTOMIZATIONS for path in generated_from(file))
    assert {path.resolve() for path in HERE.rglob("*") if path.is_file()} == used


@pytest.mark.parametrize(("file", "patch"), PATCHES, ids=named)
def test_a_patch_has_a_target(file: Path, patch: Path) -> None:
    assert identity(document(patch)) in {identity(document(path)) for path in resources(file)}


@pytest.mark.parametrize("file", KUSTOMIZATIONS, ids=named)
def test_a_change_of_a_configmap_is_no_rollout(file: Path) -> None:
    generators = document(file).get("configMapGenerator", [])
    assert all(generator["options"]["disableNameSuffixHash"] is True for generator in generators)


@pytest.mark.parametrize("file", KUSTOMIZATIONS, ids=named)
def test_everything_is_in_one_namespace(file: Path) -> None:
    own = {generator.get("namespace") for generator in document(file).get("configMapGenerator", [])}
    name = document(HERE / "base" / "namespace.yaml")["metadata"]["name"]
    bases = [path for path in files_of(file, "resources") if path.is_dir()]
    assert document(file).get("namespace") == name or (bases and own <= {name})


def test_the_secret_is_in_no_kustomization() -> None:
    assert SECRET not in [path for file in KUSTOMIZATIONS for path in resources(file)]


@pytest.mark.parametrize("file", POLICIES, ids=named)
def test_policies_have_no_warnings_and_only_the_overlay_enforce_enforces(file: Path) -> None:
    settings = load(file)
    assert settings.warnings == ()
    enforces = any(policy.mode is Mode.ENFORCE for policy in settings.rules.policies)
    assert enforces == (named(file) == "overlays/enforce/policies.yaml")


def test_base_and_enforce_differ_in_modes_only() -> None:
    base, enforce = (load(HERE / folder / "policies.yaml") for folder in ("base", "overlays/enforce"))
    assert base.servers == enforce.servers
    assert [(p.name, p.match, p.allowlist) for p in base.rules.policies] == [
        (p.name, p.match, p.allowlist) for p in enforce.rules.policies
    ]


def test_the_server_lists_of_the_fleet_are_in_its_configmap() -> None:
    fleet = HERE / "overlays" / "fleet"
    lists = set(generated_from(fleet / "kustomization.yaml")) - {fleet / "policies.yaml"}
    names = [each["name"] for path in lists for each in yaml.safe_load(path.read_text(encoding="utf-8"))]
    assert lists == set(fleet.glob("servers-*.yaml"))
    assert {server.name for server in load(fleet / "policies.yaml").servers} == set(names)


def test_every_service_of_a_dsn_has_a_section_in_the_secret() -> None:
    sections = {
        line.strip("[]")
        for line in document(SECRET)["stringData"]["pg_service.conf"].splitlines()
        if line.startswith("[")
    }
    dsns = [server.dsn for file in POLICIES for server in load(file).servers]
    assert dsns
    assert {dsn.split()[0].removeprefix("service=") for dsn in dsns} == sections


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
    return document(HERE / file)


def workload(which: str) -> Any:  # noqa: ANN401 (as yaml returns it)
    found = manifest(PODS[which])
    return found["spec"]["jobTemplate"] if found["kind"] == "CronJob" else found


def template(which: str) -> Any:  # noqa: ANN401 (as above)
    return workload(which)["spec"]["template"]


def pod(which: str) -> Any:  # noqa: ANN401 (as above)
    return template(which)["spec"]


def container(which: str) -> Any:  # noqa: ANN401 (as above)
    (found,) = pod(which)["containers"]
    return found


def environment(which: str, *, pod_name: str = "reaper-0") -> dict[str, str]:
    env = {each["name"]: each.get("value", pod_name) for each in container(which)["env"]}
    return {name: value.replace("$(POD_NAME)", pod_name) for name, value in env.items()}


def parsed(name: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parameters of this command with these variables, each of which it must read."""
    command = reaper.get_command(click.Context(reaper), name)
    assert command
    known = {option.envvar for option in command.params if isinstance(option, click.Option)}
    assert env.keys() - NOT_OURS <= known
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    return command.make_context(name, []).params


@every_pod
def test_the_command_accepts_the_variables_of_a_pod(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = container(which)["args"]
    parameters = parsed(name, environment(which), monkeypatch)
    assert parameters["log_format"] == "json"
    assert parameters["audit_log"] == ("-",)
    assert parameters["dry_run"] is False


def test_the_overlay_dry_run_makes_every_policy_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = manifest("overlays/dry-run/dry-run.yaml")
    (patched,) = patch["spec"]["template"]["spec"]["containers"]
    assert patched["name"] == container("deployment")["name"]
    env = {each["name"]: each["value"] for each in patched["env"]}
    assert parsed("run", env, monkeypatch)["dry_run"] is True


@every_pod
def test_the_policy_file_and_the_service_file_are_where_they_are_mounted(which: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(which)["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container(which)["volumeMounts"]}
    policies = mounts[posixpath.dirname(environment(which)["REAPER_CONFIG"])]
    folder, file = posixpath.split(environment(which)["PGSERVICEFILE"])
    logins = volumes[mounts[folder]["name"]]["secret"]
    secret = manifest("secret.example.yaml")
    assert "reaper-policies" in str(volumes[policies["name"]])
    assert logins["secretName"] == secret["metadata"]["name"]
    assert {file, "ca.crt"} == secret["stringData"].keys()
    assert f"sslrootcert={folder}/ca.crt" in secret["stringData"][file]
    assert all(mount["readOnly"] and "subPath" not in mount for mount in mounts.values())


@every_service
def test_probes_request_paths_that_are_served(which: str) -> None:
    paths = {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    for kind, path in paths.items():
        assert container(which)[f"{kind}Probe"]["httpGet"] == {"path": path, "port": "metrics"}

    def good() -> Health:
        return Health(good=True, reasons={})

    served = application(metrics=Metrics(__version__), livez=good, readyz=good)
    assert {*paths.values()} <= {getattr(route, "path", "") for route in served.routes}


@every_service
def test_all_manifests_use_the_same_port(which: str) -> None:
    (port,) = container(which)["ports"]
    number = port["containerPort"]
    rules = manifest("base/networkpolicy.yaml")["spec"]["ingress"]
    assert environment(which)["REAPER_LISTEN"] == f"0.0.0.0:{number}"
    assert template(which)["metadata"]["annotations"]["prometheus.io/port"] == str(number)
    assert [each["port"] for rule in rules for each in rule["ports"]] == [port["name"]] == ["metrics"]
    (service,) = manifest("overlays/fleet/service.yaml")["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (number, "metrics")


@every_pod
def test_a_pod_has_no_rights(which: str) -> None:
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
    account = manifest("base/serviceaccount.yaml")
    assert account["automountServiceAccountToken"] is False
    assert pod(which)["serviceAccountName"] == account["metadata"]["name"]


@every_pod
def test_a_pod_requests_cpu_and_memory_and_limits_memory_only(which: str) -> None:
    resources = container(which)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"].keys() == {"memory"}


@every_pod
def test_all_selectors_use_the_same_label(which: str) -> None:
    assert template(which)["metadata"]["labels"] == LABELS
    selectors = [
        manifest("base/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        manifest("base/poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        manifest("overlays/fleet/service.yaml")["spec"]["selector"],
        *(workload(service)["spec"]["selector"]["matchLabels"] for service in SERVICES),
        *(each["labelSelector"]["matchLabels"] for each in pod(which).get("topologySpreadConstraints", [])),
    ]
    assert all(selector == LABELS for selector in selectors)


def test_the_pod_of_the_fleet_differs_from_that_of_the_deployment_in_its_shard_and_servers() -> None:
    base, fleet = template("deployment"), template("fleet")
    ours = fleet["spec"]["containers"][0]
    ours["env"] = [each for each in ours["env"] if each["name"] not in {"POD_NAME", "REAPER_SHARD"}]
    ours["resources"] = base["spec"]["containers"][0]["resources"]
    fleet["spec"]["volumes"][0] = base["spec"]["volumes"][0]
    assert fleet == base


def test_the_pod_of_the_cronjob_differs_from_that_of_the_deployment_in_what_a_service_needs() -> None:
    base, cron = pod("deployment"), pod("cronjob")
    assert cron.pop("restartPolicy") == "Never"
    del base["topologySpreadConstraints"]
    (service,) = base["containers"]
    for key in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
        del service[key]
    service["args"] = ["once"]
    service["env"] = [each for each in service["env"] if each["name"] != "REAPER_LISTEN"]
    assert cron == base


def test_the_pods_of_the_fleet_have_all_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    count = workload("fleet")["spec"]["replicas"]
    for index in range(count):
        shard = parsed("run", environment("fleet", pod_name=f"reaper-{index}"), monkeypatch)["shard"]
        assert Shard.parse(shard) == Shard(index, count)


def test_the_cronjob_has_one_run_at_a_time_and_no_retry() -> None:
    assert manifest(PODS["cronjob"])["spec"]["concurrencyPolicy"] == "Forbid"
    assert workload("cronjob")["spec"]["backoffLimit"] == 0


@every_pod
def test_the_image_is_a_placeholder_of_this_version(which: str) -> None:
    assert container(which)["image"] == f"registry.example.com/pg-reaper:{__version__}"
