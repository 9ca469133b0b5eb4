"""The files for Docker and systemd, as far as they can be checked where neither runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from stt_engine.server.settings import ServerSettings
from tests.deployments.site import ROOT

FILES = ROOT / "deployments"
DOCKERFILES = sorted(FILES.glob("Dockerfile*"))
UNITS = sorted((FILES / "systemd").glob("*.service"))


def compose(name: str) -> dict[str, Any]:
    """The file with its anchors resolved and every variable as it is in an .env with the two secrets."""
    environment = {"DATABASE_PASSWORD": "secret", "S3_PASSWORD": "secret-too"}

    def value(match: re.Match[str]) -> str:
        variable, default = match["name"], match["default"]
        assert variable in environment or default is not None, f"{variable} has no default"
        return environment.get(variable, default or "")

    text = re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}", value, (FILES / name).read_text())
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_the_linter(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    if hadolint is None:
        pytest.skip("hadolint has no build for this machine")
    done = subprocess.run([hadolint, "--failure-threshold", "info", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_copy_only_what_the_context_holds(path: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (.+) \S+$", path.read_text(), re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert source in allowed, f"{source} is not in the build's context"


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_compose_files_follow_the_specification(name: str) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec has no build for this machine")
    compose_spec.PyCompose.from_json(json.dumps(compose(name))).to_spec()


def test_services_are_pinned_healthy_and_unprivileged() -> None:
    services = compose("compose.yaml")["services"]
    lasting = {name for name, service in services.items() if service["restart"] != "no"}
    assert lasting == {"database", "server", "s3", "worker", "engine"}
    for name, service in services.items():
        assert re.search(r":(cpu|[\w.-]*\d[\w.-]*)$", service["image"]), f"{name}: {service['image']} is not pinned"
        assert name not in lasting or service["healthcheck"]["test"][0] == "CMD"
        runs_as = service.get("user", "the image's")
        assert runs_as != "root" or name == "own-volumes"
        for needed in service.get("depends_on", {}):
            assert needed in services
    assert all("\nUSER 10001\n" in path.read_text() for path in DOCKERFILES)
    assert {volume.split(":")[1] for volume in services["worker"]["volumes"]} == {"/app/models", "/app/audio"}


def test_the_engine_is_where_clients_look_for_it() -> None:
    engine = compose("compose.yaml")["services"]["engine"]
    assert engine["ports"] == ["127.0.0.1:8003:8003"]
    assert {volume.split(":")[1] for volume in engine["volumes"]} == {"/app/models", "/app/audio/samples"}
    assert {"STT_DEVICE", "STT_COMPUTE_TYPE"} <= set(engine["environment"])
    assert compose("compose.cuda.yaml")["services"]["engine"]["environment"]["STT_DEVICE"] == "cuda"
    unit = (FILES / "systemd" / "nightscribe-serve.service").read_text()
    drain_s = ServerSettings.model_fields["drain_seconds"].default
    stop_s = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop_s is not None
    assert int(stop_s[1]) > drain_s
    assert int(engine["stop_grace_period"].removesuffix("s")) > drain_s


def test_the_server_batches_its_records_everywhere() -> None:
    batching = {
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    environment = compose("compose.yaml")["services"]["server"]["environment"]
    unit = (FILES / "systemd" / "nightscribe-server.service").read_text()
    for name, value in batching.items():
        assert environment[name] == value
        assert f"Environment={name}={value}\n" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_valid(path: Path, tmp_path: Path) -> None:
    for name in ("prefect", "nightscribe"):
        program = tmp_path / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/nightscribe", str(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "KillMode=mixed\nTimeoutStopSec=" in path.read_text(), "one that ignores SIGTERM would stay"
