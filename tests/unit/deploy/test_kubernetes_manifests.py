"""Every file below deploy/kubernetes is what Kubernetes expects, and is used by some kustomization."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from reaper.config import Settings, load
from reaper.policy.rules import Mode

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
def test_a_manifest_fits_the_schema_of_its_kind_and_has_no_key_beside_it(file: Path) -> None:
    kubernetes_validate.validate(document(file), SCHEMA, strict=True)


def test_the_schema_is_strict() -> None:
    manifest = document(HERE / "base" / "deployment.yaml")
    manifest["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFilesystem"):
        kubernetes_validate.validate(manifest, SCHEMA, strict=True)


def test_every_file_has_a_use() -> None:
    used = {SECRET, *KUSTOMIZATIONS, *MANIFESTS, *(patch for _, patch in PATCHES)}
    used.update(path for file in KUSTOMIZATIONS for path in generated_from(file))
    assert {path.resolve() for path in HERE.rglob("*") if path.is_file()} == used


@pytest.mark.parametrize(("file", "patch"), PATCHES, ids=named)
def test_a_patch_is_of_something_that_is_there(file: Path, patch: Path) -> None:
    assert identity(document(patch)) in {identity(document(path)) for path in resources(file)}


@pytest.mark.parametrize("file", KUSTOMIZATIONS, ids=named)
def test_an_edit_of_a_configmap_is_no_rollout(file: Path) -> None:
    generators = document(file).get("configMapGenerator", [])
    assert all(generator["options"]["disableNameSuffixHash"] is True for generator in generators)


@pytest.mark.parametrize("file", KUSTOMIZATIONS, ids=named)
def test_all_of_it_lives_in_one_namespace(file: Path) -> None:
    own = {generator.get("namespace") for generator in document(file).get("configMapGenerator", [])}
    name = document(HERE / "base" / "namespace.yaml")["metadata"]["name"]
    bases = [path for path in files_of(file, "resources") if path.is_dir()]
    assert document(file).get("namespace") == name or (bases and own <= {name})


def test_the_secret_is_in_no_kustomization() -> None:
    assert SECRET not in [path for file in KUSTOMIZATIONS for path in resources(file)]


def settings(folder: str) -> Settings:
    return load(HERE / folder / "policies.yaml")


@pytest.mark.parametrize("file", POLICIES, ids=named)
def test_policies_give_no_reason_to_warn(file: Path) -> None:
    assert load(file).warnings == ()


def test_nothing_enforces_but_the_overlay_of_that_name() -> None:
    enforcing = {
        named(file)
        for file in POLICIES
        if any(policy.mode is Mode.ENFORCE for policy in load(file).rules.policies)
    }
    assert enforcing == {"overlays/enforce/policies.yaml"}


def test_enforcing_and_rehearsing_differ_in_modes_only() -> None:
    base, enforce = settings("base"), settings("overlays/enforce")
    assert base.servers == enforce.servers
    assert [(p.name, p.match, p.allowlist) for p in base.rules.policies] == [
        (p.name, p.match, p.allowlist) for p in enforce.rules.policies
    ]


def test_the_lists_of_the_fleet_are_those_that_its_configmap_holds() -> None:
    fleet = HERE / "overlays" / "fleet"
    lists = set(generated_from(fleet / "kustomization.yaml")) - {fleet / "policies.yaml"}
    names = [each["name"] for path in lists for each in yaml.safe_load(path.read_text(encoding="utf-8"))]
    assert lists == set(fleet.glob("servers-*.yaml"))
    assert {server.name for server in settings("overlays/fleet").servers} == set(names)


def test_every_service_of_a_dsn_has_a_section_in_the_secret() -> None:
    sections = {
        line.strip("[]")
        for line in document(SECRET)["stringData"]["pg_service.conf"].splitlines()
        if line.startswith("[")
    }
    dsns = [server.dsn for file in POLICIES for server in load(file).servers]
    assert dsns
    assert {dsn.split()[0].removeprefix("service=") for dsn in dsns} == sections
