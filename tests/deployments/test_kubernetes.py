"""The manifests for Kubernetes, held against the code; no cluster is here, so nothing is applied."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.on_dask import check_dask
from tasks.runners.dask_worker import RESOURCE
from tasks.settings import RunSettings
from tests.deployments.site import ROOT, free_port, wait_until
from tests.test_docs import complaint_about

FILES = ROOT / "deployments" / "kubernetes"
WAYS = ("one-machine", "dask")
LABEL = "app.kubernetes.io/name"
Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def manifests(folder: str) -> list[Manifest]:
    """As `kubectl apply -k` would: everything that the kustomization names, and what those name."""
    found: list[Manifest] = []
    for name in documents(FILES / folder / "kustomization.yaml")[0]["resources"]:
        path = FILES / folder / name
        found += manifests(str(path.resolve().relative_to(FILES))) if path.is_dir() else documents(path)
    return found


def pod(manifest: Manifest) -> Manifest | None:
    """The template of its pods."""
    spec: Manifest = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template")


def containers(way: str) -> Iterator[tuple[Manifest, Manifest]]:
    """(manifest, container) of all of them."""
    for manifest in manifests(way):
        if (template := pod(manifest)) is not None:
            yield from ((manifest, container) for container in template["spec"]["containers"])


def of(way: str, name: str) -> Manifest:
    return next(container for manifest, container in containers(way) if manifest["metadata"]["name"] == name)


def settings_of(way: str) -> dict[str, str]:
    return next(found["data"] for found in manifests(way) if found["kind"] == "ConfigMap")


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def expanded(words: list[str], values: dict[str, str]) -> list[str]:
    """`$(NAME)` as Kubernetes puts it in; a name that is not there is left as it is."""
    return [re.sub(r"\$\((\w+)\)", lambda match: values.get(match[1], match[0]), word) for word in words]


def kubectl_of_today() -> bool:
    """Not Debian's own of 1.20: its kustomize takes no folder among the resources, and it names no version of that."""
    if shutil.which("kubectl") is None:
        return False
    done = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True)
    return "kustomizeVersion" in done.stdout


def test_every_manifest_is_named_by_a_kustomization() -> None:
    named = {
        (path.parent / name).resolve()
        for path in FILES.rglob("kustomization.yaml")
        for name in documents(path)[0]["resources"]
    }
    assert {path.resolve() for path in FILES.rglob("*.yaml") if path.name != "kustomization.yaml"} <= named
    assert all(path.exists() for path in named)


@pytest.mark.skipif(not kubectl_of_today(), reason="no kubectl of 1.24 or later here")
@pytest.mark.parametrize("way", WAYS)
def test_kubectl_renders_what_this_test_reads(way: str) -> None:
    done = subprocess.run(["kubectl", "kustomize", FILES / way], capture_output=True, text=True, check=True)
    rendered = [found for found in yaml.safe_load_all(done.stdout) if found]

    def key(found: Manifest) -> tuple[str, str]:
        return found["kind"], found["metadata"]["name"]

    assert sorted(rendered, key=key) == sorted(manifests(way), key=key)


@pytest.mark.parametrize("way", WAYS)
def test_everything_is_there_once_in_one_namespace(way: str) -> None:
    found = manifests(way)
    keys = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in found]
    assert len(set(keys)) == len(keys)
    assert {manifest["metadata"].get("namespace") for manifest in found if manifest["kind"] != "Namespace"} == {
        "nightscribe"
    }
    assert not [kind for kind, _ in keys if kind == "Secret"], "secrets come from the environment"
    kinds = {kind for kind, _ in keys}
    assert {"StatefulSet", "Deployment", "Service", "ConfigMap", "PersistentVolumeClaim"} <= kinds


@pytest.mark.parametrize("way", WAYS)
def test_services_find_their_pods_and_addresses_their_services(way: str) -> None:
    pods = {template["metadata"]["labels"][LABEL]: template for m in manifests(way) if (template := pod(m)) is not None}
    ports: dict[str, int] = {}
    for manifest in manifests(way):
        if manifest["kind"] == "Service":
            chosen = pods[manifest["spec"]["selector"][LABEL]]["spec"]["containers"][0]
            (port,) = manifest["spec"]["ports"]
            offered = {entry["name"]: entry["containerPort"] for entry in chosen["ports"]}
            assert offered[port.get("targetPort", port["name"])] == port["port"]
            ports[manifest["metadata"]["name"]] = port["port"]
        if "selector" in manifest.get("spec", {}) and "template" in manifest["spec"]:
            labels = manifest["spec"]["template"]["metadata"]["labels"]
            assert manifest["spec"]["selector"]["matchLabels"] == labels
        for words in _policy_labels(manifest):
            assert set(words) <= set(pods)
    texts = [*settings_of(way).values()]
    for _, container in containers(way):
        texts += [str(entry.get("value")) for entry in container.get("env", [])] + container.get("command", [])
    named = [match for text in texts for match in re.findall(r"(?:http|tcp)://([\w-]+):(\d+)", text)]
    named += [match for text in texts for match in re.findall(r"@([\w-]+):(\d+)/", text)]
    assert named
    assert {(name, int(port)) for name, port in named if name != "localhost"} <= set(ports.items())


def _policy_labels(manifest: Manifest) -> Iterator[list[str]]:
    if manifest["kind"] != "NetworkPolicy":
        return
    spec = manifest["spec"]
    for selector in (spec["podSelector"], *(peer["podSelector"] for rule in spec["ingress"] for peer in rule["from"])):
        yield list(selector.get("matchLabels", {}).values())
        for expression in selector.get("matchExpressions", []):
            yield expression["values"]


@pytest.mark.parametrize("way", WAYS)
def test_commands_and_their_options_exist(way: str) -> None:
    for manifest, container in containers(way):
        program, *words = container.get("command", ["postgres"])
        name = manifest["metadata"]["name"]
        if program == "nightscribe":
            assert complaint_about(words) is None, f"{name}: {complaint_about(words)}"
        elif program == "python":
            assert (ROOT / words[0]).exists()
        elif program in ("prefect", "dask"):
            verbs = [word for word in words[: 2 if program == "prefect" else 1] if not word.startswith("-")]
            done = subprocess.run(
                [sys.executable, "-m", program, *verbs, "--help"], capture_output=True, text=True, check=True,
                env=os.environ | {"COLUMNS": "200"},
            )  # fmt: skip
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            known = set(re.findall(r"--[\w-]+", done.stdout))
            assert given <= known, f"{name}: {program} knows no {given - known}"
        else:
            assert program == "postgres", f"{name}: {program}?"


@pytest.mark.parametrize("way", WAYS)
def test_variables_are_read_by_somebody(way: str) -> None:
    import dask.config
    import distributed  # noqa: F401 - brings its defaults into dask.config
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings

    page = (ROOT / "deployments" / "README.md").read_text()
    table = "\n".join(re.findall(r"^\|.*\|$", page, flags=re.MULTILINE))
    prefect_names = {name.upper() for name in _get_settings_fields(Settings)}
    for _, container in containers(way):
        if container["name"] == "postgres":
            continue
        for name in [entry["name"] for entry in container.get("env", [])] + [*settings_of(way)]:
            if name.startswith("PREFECT_"):
                assert name in prefect_names
            elif name.startswith("DASK_"):
                dask.config.get(name.removeprefix("DASK_").lower().replace("__", "."))
            else:
                assert name in table or name in ("DATABASE_PASSWORD", "AWS_DEFAULT_REGION"), name


@pytest.mark.parametrize("way", WAYS)
def test_what_a_container_refers_to_is_there(way: str) -> None:
    found = manifests(way)
    settings, page = settings_of(way), (FILES / "README.md").read_text()
    secrets = dict(
        re.findall(r"create secret generic (\w+) ((?:.|\\\n)*?)(?=\nkubectl|\n```)", page.replace("\\\n", ""))
    )
    claims = {manifest["metadata"]["name"] for manifest in found if manifest["kind"] == "PersistentVolumeClaim"}
    for manifest, container in containers(way):
        template = pod(manifest)
        assert template is not None
        for entry in container.get("envFrom", []):
            assert entry.get("configMapRef", {"name": "settings"})["name"] == "settings"
            assert entry.get("secretRef", {"name": "storage"})["name"] in secrets
        for entry in container.get("env", []):
            source = entry.get("valueFrom", {})
            if secret := source.get("secretKeyRef"):
                assert f"--from-literal={secret['key']}=" in secrets[secret["name"]]
            if key := source.get("configMapKeyRef"):
                assert key["key"] in settings
        spec = template["spec"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        claimed = {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == set(volumes) | claimed
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {"claimName": "models"})["claimName"] in claims


def test_all_that_meet_at_the_spool_mount_it_where_the_run_says() -> None:
    (spool,) = [word for word in of("dask", "nightly")["command"] if word.startswith("--spool=file://")]
    for name in ("nightly", "gpu-worker", "cpu-worker"):
        mounts = {mount["name"]: mount["mountPath"] for mount in of("dask", name)["volumeMounts"]}
        assert mounts["spool"] == spool.removeprefix("--spool=file://")


@pytest.mark.parametrize("way", WAYS)
def test_no_container_has_more_rights_than_it_needs(way: str) -> None:
    for manifest, container in containers(way):
        template = pod(manifest)
        assert template is not None
        spec, rights = template["spec"], container["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
        assert rights == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"]["memory"]
        assert re.search(r":(cpu|cuda|[\w.-]*\d[\w.-]*)$", container["image"])
        ours = container["image"].startswith("nightscribe:")
        user = spec["securityContext"]["runAsUser"]
        assert not ours or f"\nUSER {user}\n" in (ROOT / "deployments" / "Dockerfile").read_text()


def test_dask_workers_offer_what_orders_ask_for() -> None:
    offered = {}
    for kind, resource in RESOURCE.items():
        worker = of("dask", f"{kind}-worker")
        name, _, count = option(worker["command"], "--resources").partition("=")
        assert name == resource
        assert option(worker["command"], "--nthreads") == count
        assert option(worker["command"], "--memory-limit") == "0", "limits are those of the processes below"
        offered[name] = int(count)
    assert of("dask", "cpu-worker")["resources"]["limits"]["cpu"] == str(offered["CPU"])
    gpus = {name for name in RESOURCE if "nvidia.com/gpu" in of("dask", f"{name}-worker")["resources"]["limits"]}
    assert gpus == {"gpu"}
    assert of("dask", "gpu-worker")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert f"--gpu-workers={offered['GPU']}" in of("dask", "nightly")["command"]
    assert of("one-machine", "worker")["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_nightly_run_would_be_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("dask")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    _, _, source, dest, *options = expanded(of("dask", "nightly")["command"], settings)
    pairs = (word.removeprefix("--").split("=", 1) for word in options)
    given = {name.replace("-", "_"): value for name, value in pairs}
    spool = given.pop("spool")
    run = RunSettings(source=source, dest=dest, advanced={"spool": spool}, **given)
    check_dask(run)
    assert (run.source, run.dest, run.model) == (
        settings["NIGHTSCRIBE_SOURCE"],
        settings["NIGHTSCRIBE_DEST"],
        settings["NIGHTSCRIBE_MODEL"],
    )
    assert run.task_runner == "dask"
    assert run.advanced.spool == spool
    protocols = settings["NIGHTSCRIBE_ALLOWED_PROTOCOLS"].split(",")
    assert {source.partition("://")[0], spool.partition("://")[0]} <= set(protocols)
    assert "$(" not in " ".join(expanded(of("dask", "compact")["command"], settings))


def test_the_server_batches_its_records_as_elsewhere() -> None:
    compose = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text())
    elsewhere = compose["services"]["server"]["environment"]
    here = {entry["name"]: entry.get("value") for entry in of("dask", "server")["env"]}
    names = [name for name in elsewhere if "RECORDER" in name or "ANALYTICS" in name]
    assert len(names) == 4
    assert {name: here[name] for name in names} == {name: elsewhere[name] for name in names}
    postgres = compose["services"]["database"]
    assert of("dask", "database")["image"] == postgres["image"]


def test_a_scheduler_and_workers_started_as_written_find_each_other(tmp_path: Path) -> None:
    from distributed import Client

    address = f"tcp://127.0.0.1:{free_port()}"
    host, port = address.removeprefix("tcp://").split(":")

    def command(name: str) -> list[str]:
        words = [sys.executable, "-m", *of("dask", name)["command"]]
        there = {"tcp://dask-scheduler:8786": address, "8786": port, "0.0.0.0": host, "/tmp/dask": str(tmp_path)}
        return [there.get(word, word) for word in words]

    with (tmp_path / "log").open("wb") as log:
        processes = []
        try:
            for name in ("dask-scheduler", "gpu-worker", "cpu-worker"):
                processes.append(subprocess.Popen(command(name), stdout=log, stderr=log))
            with Client(address, timeout=30) as client:
                wait_until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2, 30)
                workers = client.scheduler_info(n_workers=-1)["workers"].values()
                found = {next(iter(worker["resources"].items())) for worker in workers}
                assert found == {("GPU", 2.0), ("CPU", 8.0)}
        finally:
            for process in reversed(processes):
                process.terminate()
            deadline = time.monotonic() + 20
            for process in processes:
                process.wait(timeout=max(1.0, deadline - time.monotonic()))
