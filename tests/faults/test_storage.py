"""The real flow over a store that misbehaves: what is left is right after one more run.

Every run takes one scenario, the long form all of them, in turn. A line for each is printed (pytest -rA shows it).
"""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.backoff import ATTEMPTS
from tasks.parts import list_parts, read_columns
from tasks.storage import open_store
from tests.faults.s3_proxy import S3Proxy, running_proxy
from tests.faults.storage_faults import NAMES, SCENARIOS, Scene
from tests.flows.conftest import CommandLine, Said
from tests.long_form import nights
from tests.prefect_server import PrefectServer
from tests.tasks.conftest import Endpoint, ceph_endpoint  # noqa: F401

RUN_OPTIONS = ("--model", "fixture", "--device", "cpu", "--cpu-workers", "1", "--files-per-part", "2", "--task-batch-s",
               "0.2", "--device-batch-windows", "2", "--retry-delay-s", "0.1", "--json")  # fmt: skip
COLUMNS = ("source_uri", "status", "error_type", "text")
pytestmark = [pytest.mark.ceph, pytest.mark.timeout(600)]


class Night:
    """`nightscribe run` of one bucket into another through an endpoint."""

    def __init__(self, url: str, source: str, dest: str) -> None:
        self._command_line, self._places = CommandLine(url), (source, dest)

    def start(self, endpoint: str, *options: str, **variables: str) -> subprocess.Popen[str]:
        environment = Endpoint(endpoint, "proxy").environment()
        return self._command_line.start("run", *self._places, *RUN_OPTIONS, *options, **environment, **variables)


def ended(process: subprocess.Popen[str]) -> Said:
    try:
        out, err = process.communicate(timeout=400)
    finally:
        process.kill()
    return Said(process.returncode, out, err)


def rows(dest: str) -> list[dict[str, Any]]:
    store = open_store(dest)
    return [row for table in read_columns(store, list(list_parts(store, "transcripts")), COLUMNS)
            for row in table.to_pylist()]  # fmt: skip


def key_of(row: dict[str, Any]) -> str:
    return str(row["source_uri"].rpartition("/")[2])


class Undisturbed:
    """A run that nobody disturbs, on its way while the first disturbed one is."""

    def __init__(self, night: Night, endpoint: str, dest: str) -> None:
        self._dest, self._process = dest, night.start(endpoint)
        self._texts: dict[str, str] = {}

    def texts(self) -> dict[str, str]:
        """By sample."""
        if not self._texts:
            done = ended(self._process)
            assert done.status == 0, done.err
            self._texts = {key_of(row).removesuffix(".flac"): row["text"] for row in rows(self._dest)}
            assert set(self._texts) == set(NAMES)
        return self._texts

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def scene_of(proxy: S3Proxy, store: Endpoint, samples: Path) -> Scene:
    mark = uuid.uuid4().hex[:8]
    scene = Scene(proxy, store.client(), f"calls-{mark}", f"tables-{mark}", samples)
    for bucket in (scene.calls, scene.tables):
        scene.client.create_bucket(Bucket=bucket)
    for name in NAMES:
        scene.put(f"{name}.flac", name)
    return scene


@pytest.fixture
def gateway(ceph_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:  # noqa: F811
    """The store itself, for this process to look into."""
    for name, value in ceph_endpoint.environment().items():
        monkeypatch.setenv(name, value)
    return ceph_endpoint


@pytest.fixture(scope="module")
def undisturbed(ceph_endpoint: Endpoint, server: PrefectServer, samples: Path) -> Iterator[Undisturbed]:  # noqa: F811
    scene = scene_of(S3Proxy(ceph_endpoint.url, seed=0), ceph_endpoint, samples)
    dest = f"s3://{scene.tables}/x"
    run = Undisturbed(Night(server.url, f"s3://{scene.calls}", dest), ceph_endpoint.url, dest)
    yield run
    run.stop()


@pytest.mark.parametrize("seed", nights([1]))
def test_after_one_more_run_every_file_has_one_row(
    seed: int, gateway: Endpoint, undisturbed: Undisturbed, server: PrefectServer, samples: Path
) -> None:
    scenario = SCENARIOS[seed % len(SCENARIOS)]
    with running_proxy(gateway.url, seed=seed) as proxy:
        scene = scene_of(proxy, gateway, samples)
        dest = f"s3://{scene.tables}/x"
        night = Night(server.url, f"s3://{scene.calls}", dest)
        scenario.begin(scene)
        began_s = time.monotonic()
        disturbed = ended(night.start(proxy.url, *scenario.options, **scenario.environment))
        took_s, faults = time.monotonic() - began_s, len(proxy.faults())
        most = max_per_key(proxy, scene)
        landed = len(rows(dest))
        scene.proxy.obey()
        texts = undisturbed.texts()
        again = ended(night.start(gateway.url))
    found = rows(dest)
    lost = set(scene.expected) - {key_of(row) for row in found}
    doubled = len(found) - len({row["source_uri"] for row in found})
    print(
        f"seed {seed}: {scenario.name}: {faults} of {len(proxy.seen())} requests met a fault, at most {most} for a "
        f"file; exit {disturbed.status} after {took_s:.0f} s with {landed} rows; then exit {again.status}, "
        f"{len(lost)} lost, {doubled} doubled"
    )
    assert faults, "nothing was tried"
    assert "Traceback" not in disturbed.err + again.err, disturbed.err + again.err
    assert disturbed.status in scenario.statuses, disturbed.err
    assert again.status == 0, again.err
    assert (lost, doubled) == (set(), 0)
    said = {key_of(row): row["text"] for row in found if key_of(row) in scene.expected}
    assert said == {key: texts[sample] for key, sample in scene.expected.items()}
    others = [row for row in found if key_of(row) not in scene.expected]
    assert [row["error_type"] for row in others] in ([], ["SourceGone"])
    assert most <= 4 * ATTEMPTS
    check_what_was_said(scenario.name, disturbed, again, dest, landed)


def max_per_key(proxy: S3Proxy, scene: Scene) -> int:
    return max((len(proxy.seen("GET", key=f"^{scene.calls}/{key}$")) for key in scene.expected), default=0)


def check_what_was_said(name: str, disturbed: Said, again: Said, dest: str, landed: int) -> None:
    if name == "read-only after the first part":
        last = disturbed.err.splitlines()[-1]
        assert last.startswith(f"nightscribe: DEST {dest} cannot be written any more")
        assert "403" in last and "run again" in last
        assert landed == 2, "the first part stays"
        assert json.loads(again.out.splitlines()[-1])["landed"] == len(NAMES) - landed
    if name == "one file never":
        assert json.loads(disturbed.out.splitlines()[-1])["landed"] == len(NAMES) - 1
        assert "1 to be retried" in disturbed.err
