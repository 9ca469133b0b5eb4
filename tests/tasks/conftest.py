"""Real stores for the tests: a folder, moto's S3 in this process, and Ceph's gateway where it is installed."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tasks.storage import Store, open_store
from tests.s3.gateway import running_gateway
from tests.tasks.played_night import spool  # noqa: F401
from tests.tasks.prefect_fixtures import prefect_server  # noqa: F401

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Endpoint:
    """An S3 server on loopback."""

    url: str
    kind: str

    def environment(self, user: str = "test", secret: str | None = None) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": secret or f"{user}secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self, user: str = "test") -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=user,
            aws_secret_access_key=f"{user}secret",
            region_name="us-east-1",
            config=Config(request_checksum_calculation="when_required", s3={"addressing_style": "path"}),
        )


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[Endpoint]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Endpoint(f"http://{host}:{port}", "moto")
    server.stop()


@pytest.fixture(scope="session")
def ceph_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_gateway(tmp_path_factory.mktemp("ceph") / "gateway") as server:
        yield Endpoint(server.endpoint, "ceph")


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.ceph)])
def s3_endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """Both servers in turn, with the credentials in the environment."""
    endpoint: Endpoint = request.getfixturevalue(f"{request.param}_endpoint")
    for name, value in endpoint.environment().items():
        monkeypatch.setenv(name, value)
    return endpoint


@pytest.fixture
def bucket(s3_endpoint: Endpoint) -> str:
    name = f"calls-{uuid.uuid4().hex[:12]}"
    s3_endpoint.client().create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["local", "moto", pytest.param("ceph", marks=pytest.mark.ceph)])
def dest(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh DEST of each kind; for S3 the environment holds the credentials."""
    if request.param == "local":
        return str(tmp_path / "dest")
    endpoint: Endpoint = request.getfixturevalue(f"{request.param}_endpoint")
    for name, value in endpoint.environment().items():
        monkeypatch.setenv(name, value)
    name = f"tables-{uuid.uuid4().hex[:12]}"
    endpoint.client().create_bucket(Bucket=name)
    return f"s3://{name}/some prefix/한국"


@pytest.fixture
def store(dest: str) -> Store:
    return open_store(dest)


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "dest"))


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts this test's own Python processes (`-m` module, arguments) and ends those that are left."""
    started: list[subprocess.Popen[str]] = []

    def start(module: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
