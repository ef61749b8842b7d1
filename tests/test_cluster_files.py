"""The files in cluster/ are what they claim, by Ray's own schema, KubeRay's, and linters; nothing is started."""

from __future__ import annotations

import copy
import functools
import re
import shlex
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from lgsrr.config import TrainConfig
from pipelines.settings import ExtractConfig
from tests.shared import SHARED
from tests.shell_tools import complaints
from tests.tiny import ROOT
from tune.settings import SearchConfig

CLUSTER = ROOT / "cluster"
MANIFESTS = {"raycluster": "rayclusters", "rayjob-extract": "rayjobs", "rayjob-search": "rayjobs"}
RAY = "2.60.0"
SECRET = re.compile(r"sk-[A-Za-z0-9]{8}|AKIA[0-9A-Z]{8}|(?i:password|secret_?key|api_?key)[=:][\"']?[A-Za-z0-9]{6}")


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text(encoding="utf-8"))
    return loaded


def cluster_spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = manifest(name)["spec"]
    whole: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return whole


def groups(name: str) -> list[dict[str, Any]]:
    """The head's group and those of the workers."""
    spec = cluster_spec(name)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def container(group: dict[str, Any]) -> dict[str, Any]:
    (found,) = group["template"]["spec"]["containers"]
    return dict(found)


def aws() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))
    return loaded


# ---- the image


def dockerfile() -> list[str]:
    """Its instructions, one a line."""
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_hadolint_has_nothing_to_say() -> None:
    assert complaints("hadolint", CLUSTER / "Dockerfile") == ""


def test_the_image_is_pinned_and_a_build_argument_makes_it_one_for_cpus() -> None:
    lines = dockerfile()
    arguments = dict(line.removeprefix("ARG ").split("=", 1) for line in lines if line.startswith("ARG "))
    assert arguments["VARIANT"] == "cuda"
    assert {line for line in lines if line.startswith("FROM ")} == {
        "FROM ${CUDA_IMAGE} AS base-cuda", "FROM ${CPU_IMAGE} AS base-cpu", "FROM base-${VARIANT} AS lgsrr",
    }  # fmt: skip
    for image in (arguments["CUDA_IMAGE"], arguments["CPU_IMAGE"]):
        assert re.fullmatch(r"[a-z/]+:[0-9][\w.-]*", image), f"{image} is not pinned"
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert all("--constraint constraints.txt" in line or "--no-deps" in line for line in installs)


def test_the_image_does_not_run_as_root_and_what_it_copies_is_named() -> None:
    lines = dockerfile()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["1000"]
    sent = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in sent  # all else stays out of the build: data, keys
    for line in lines:
        if line.startswith("COPY "):
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            assert all(f"!{source}" in sent and (ROOT / source).exists() for source in sources), line


def test_every_dependency_of_the_project_is_constrained_to_a_version_that_it_allows() -> None:
    import tomllib

    pins = {}
    for line in (CLUSTER / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version, f"{line!r} names no version"
            pins[re.sub(r"[-_.]+", "-", name).lower()] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["local"], *extras["aws"], *extras["server"]]:
        wanted = Requirement(text)
        assert pins[wanted.name.lower()] in wanted.specifier, text
    assert pins["ray"] == RAY


# ---- what the commands in these files say


def commands() -> list[tuple[str, list[str]]]:
    """Every command of the project in these files: where, and its words."""
    found = []
    for path in [*CLUSTER.glob("*.sh"), *CLUSTER.glob("*.yaml"), CLUSTER / "README.md"]:
        text = re.sub(r"\\\n[#\s]*", " ", path.read_text(encoding="utf-8"))
        if path.name.startswith("rayjob"):
            text = " ".join(manifest(path.stem)["spec"]["entrypoint"].split())
        for match in re.finditer(
            r"python (?:/app/)?(-m lgsrr\.train|pipelines/extract\.py|tune/search\.py) (--[^\n`]*)", text
        ):
            words = shlex.split(match[2].split(" #")[0])
            found.append((path.name, [match[1], *words]))
    return found


CONFIGS = {"-m lgsrr.train": TrainConfig, "pipelines/extract.py": ExtractConfig, "tune/search.py": SearchConfig}


def test_the_commands_are_those_that_the_project_has() -> None:
    import tyro

    found = commands()
    assert {program for _, (program, *_) in found} == set(CONFIGS)
    assert {"rayjob-extract.yaml", "rayjob-search.yaml", "submit.sh"} <= {where for where, _ in found}
    for where, (program, *words) in found:
        config: Any = tyro.cli(
            CONFIGS[program], args=words, config=(tyro.conf.FlagCreatePairsOff,)
        )  # exits where it cannot
        if config.dataset == "sample":  # on one machine
            continue
        # What is left behind is on storage that outlives the node.
        assert config.runs.startswith(("/shared/", "s3://")), where
        if isinstance(config, TrainConfig):
            assert config.storage is not None, where
            assert config.storage.startswith(("/shared/", "s3://")), where
        else:
            assert config.budget_usd is not None, where


def test_no_file_holds_a_secret() -> None:
    for path in [*CLUSTER.iterdir(), *(ROOT / "mlflow").iterdir()]:
        if path.is_file() and path.suffix not in (".png", ".webp"):
            assert not SECRET.findall(path.read_text(encoding="utf-8")), path


def test_shellcheck_has_nothing_to_say() -> None:
    assert complaints("shellcheck", *CLUSTER.glob("*.sh"), *(ROOT / "mlflow").glob("*.sh"), ROOT / ".ci" / "run") == ""


# ---- AWS


def test_rays_own_schema_accepts_the_cluster_on_aws() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(aws())))


def test_ray_up_installs_nothing_on_its_own() -> None:
    from ray.autoscaler._private.util import prepare_config

    prepared = prepare_config(copy.deepcopy(aws()))
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []


def test_the_cluster_on_aws_goes_down_to_its_head_and_takes_its_workers_from_the_spot_market() -> None:
    types = aws()["available_node_types"]
    head = types.pop(aws()["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0, "driver": 2}
    for node in types.values():
        assert node["min_workers"] == 0 < node["max_workers"]
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert ("GPU" in types["gpu"]["resources"], "GPU" in types["cpu"]["resources"]) == (True, False)
    for node in (head, *types.values()):
        assert node["node_config"]["IamInstanceProfile"]["Name"].startswith("lgsrr-")
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_the_cluster_on_aws_wants_a_token_and_keeps_its_dashboard_to_itself() -> None:
    config = aws()
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "/home/lgsrr/.ray/auth_token" in config["file_mounts"]
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert '{"driver": 2}' in start


# ---- Kubernetes


def strict(schema: Any) -> Any:
    """A schema of a CRD as one that refuses unknown fields, as the API server does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    if made.get("type") == "object" and "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@functools.cache
def kuberay_schema(kind: str) -> jsonschema.Draft202012Validator:
    path = SHARED / "crds" / f"ray.io_{kind}.yaml"
    if not path.is_file():
        pytest.skip(f"needs KubeRay's schemas: {path} is absent (set LGSRR_SHARED)")
    crd = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == "v1")
    schema["properties"]["metadata"] = {"type": "object"}  # the API server knows its fields
    return jsonschema.Draft202012Validator(strict(schema))


def test_kuberays_schema_knows_what_a_manifest_may_not_hold() -> None:
    """Or a schema that accepts everything would prove nothing."""
    wrong = manifest("raycluster")
    wrong["spec"]["headGroupSpec"]["replicas"] = "two"
    assert list(kuberay_schema("rayclusters").iter_errors(wrong))


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberays_schema_accepts_the_manifest(name: str) -> None:
    errors = kuberay_schema(MANIFESTS[name]).iter_errors(manifest(name))
    assert [f"{list(error.path)}: {error.message}" for error in errors] == []


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifest_has_the_documented_fields(name: str) -> None:
    whole, spec = manifest(name), cluster_spec(name)
    assert whole["apiVersion"] == "ray.io/v1"
    assert whole["kind"] == ("RayCluster" if name == "raycluster" else "RayJob")
    assert spec["rayVersion"] == RAY
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    for group in spec["workerGroupSpecs"]:
        assert (group["minReplicas"], group["replicas"] <= group["maxReplicas"]) == (0, True)
    gpu, cpu = spec["workerGroupSpecs"]
    assert "nvidia.com/gpu" in container(gpu)["resources"]["limits"]
    assert "nvidia.com/gpu" not in container(cpu)["resources"]["limits"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_pod_is_probed_shares_storage_and_has_secrets_by_reference_alone(name: str) -> None:
    for group in groups(name):
        pod, main = group["template"]["spec"], container(group)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["restartPolicy"] == "Never"
        assert main["readinessProbe"]["httpGet"]
        assert main["livenessProbe"]["httpGet"]
        assert main["resources"]["requests"] == main["resources"]["limits"]
        mounts = {mount["name"]: mount["mountPath"] for mount in main["volumeMounts"]}
        assert mounts["shared"] == "/shared"
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes.keys() == mounts.keys()
        assert "persistentVolumeClaim" in volumes["shared"]
        assert "secretName" in volumes["openai"]["secret"]
        for variable in main["env"]:
            if re.search("PASSWORD|KEY|TOKEN|SECRET", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]
                assert "value" not in variable


def test_a_job_has_the_cluster_that_stays_but_for_how_many_workers_it_begins_with() -> None:
    def without_numbers(name: str) -> dict[str, Any]:
        spec = copy.deepcopy(cluster_spec(name))
        for group in spec["workerGroupSpecs"]:
            del group["replicas"], group["maxReplicas"]
        return spec

    for name in ("rayjob-extract", "rayjob-search"):
        assert without_numbers(name) == without_numbers("raycluster")
        assert manifest(name)["spec"]["shutdownAfterJobFinishes"] is True


def test_a_job_begins_with_the_gpus_that_its_command_asks_for() -> None:
    """A command plans by the nodes that it finds, and a group that scales to zero has none."""
    gpu = {name: cluster_spec(name)["workerGroupSpecs"][0]["replicas"] for name in MANIFESTS}
    (engines,) = re.findall(r"--engines (\d+)", manifest("rayjob-extract")["spec"]["entrypoint"])
    assert gpu["rayjob-extract"] == int(engines)
    assert gpu["rayjob-search"] > 0
