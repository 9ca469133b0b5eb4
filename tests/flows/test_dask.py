"""The flow with its workers on a Dask cluster of separate processes that share no disk, and lose some of them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tasks.announce import Event, listening
from tasks.night_terms import FileFinished
from tasks.parts import list_parts, read_columns
from tasks.run_record import read_records
from tasks.runners.dask_pool import DaskCluster
from tasks.storage import open_store
from tests.flows.conftest import Night, advanced, logs_of
from tests.flows.dask_machines import Machine, Machines, below, command, forwarded, machines, workers_of
from tests.long_form import long
from tests.s3.gateway import missing_binaries
from tests.tasks.conftest import Endpoint, ceph_endpoint, moto_endpoint  # noqa: F401
from tests.tasks.waiting import until


@pytest.fixture(params=[48, pytest.param(300, marks=long)])
def n_files(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """A scheduler, two workers for decoding and two that hold a model; this process and they reach one S3 server."""
    endpoint: Endpoint = request.getfixturevalue("moto_endpoint" if missing_binaries() else "ceph_endpoint")
    forwarding: list[Any] = []

    def variables(gateway: str) -> dict[str, str]:
        forwarding.append(forwarded(gateway, endpoint.url))
        found = endpoint.environment() | {"AWS_ENDPOINT_URL": forwarding[0].__enter__()}
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        return found | {
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "8s",
        }

    with machines(tmp_path / "machines", variables) as made:
        try:
            made.start_scheduler()
            for kind in ("gpu", "cpu"):
                for number in range(2):
                    made.start_worker(f"{kind}-{number}", f"{kind.upper()}=1")
            until(lambda: len(workers_of(made.address)) == 4, within_s=60.0)
            yield made
        finally:
            for forward in forwarding:
                forward.__exit__(None, None, None)


@pytest.fixture
def bucket(cluster: Machines, samples: Path, n_files: int) -> str:
    """With n_files short recordings below calls/."""
    import boto3

    client = boto3.client("s3", endpoint_url=cluster.environment["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket="cluster")
    originals = sorted(samples.glob("??_00?.flac"))

    def put(number: int) -> None:
        body = originals[number % len(originals)].read_bytes()
        client.put_object(Bucket="cluster", Key=f"calls/{number:03d}.flac", Body=body)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put, range(n_files)))
    return "s3://cluster"


@pytest.fixture
def done_by(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Kind and host of the workers that answered, counted."""
    counted: Counter[tuple[str, str]] = Counter()
    ask: Callable[..., Any] = DaskCluster.ask

    def spy(self: DaskCluster, kind: Any, request: bytes, **rest: Any) -> Any:
        told = ask(self, kind, request, **rest)
        counted[kind, told.worker] += 1
        return told

    monkeypatch.setattr(DaskCluster, "ask", spy)
    return counted


@pytest.mark.timeout(600)
def test_a_worker_is_killed_one_is_cut_off_one_joins_and_every_file_lands_once(
    night: Callable[..., Night], cluster: Machines, bucket: str, n_files: int, done_by: Counter[tuple[str, str]]
) -> None:
    names = {machine.name: machine for machine in cluster.started}
    seen: list[FileFinished] = []
    joined: list[Machine] = []

    def gpu_workers() -> set[str]:
        return {name for name in workers_of(cluster.address) if name.startswith("gpu")}

    def meanwhile(event: Event) -> None:
        if not isinstance(event, FileFinished):
            return
        seen.append(event)
        if len(seen) == n_files // 8:
            os.kill(names["gpu-0"].dask_worker(), signal.SIGKILL)
        elif len(seen) == n_files // 6:
            names["cpu-1"].cut_off()
        elif len(seen) == n_files // 4:
            joined.append(cluster.start_worker("gpu-2", "GPU=1"))
            until(lambda: gpu_workers() == {"gpu-0", "gpu-1", "gpu-2"}, within_s=60.0)
        elif joined and not done_by["gpu", _address(cluster.address, joined[0].name)]:
            time.sleep(0.3)  # it has yet to load its model: the others are to leave it something

    with listening(meanwhile):
        done = night(
            f"{bucket}/calls", f"{bucket}/tables", backend="fake", device="cpu", task_runner="dask",
            dask_address=cluster.address,
            advanced=advanced(spool=f"{bucket}/spool", device_batch_windows=1, task_batch_s=0.001, files_per_part=16),
        )  # fmt: skip
    assert done.state.is_completed(), done.state.message
    assert done.summary.landed == n_files

    store = open_store(f"{bucket}/tables")
    rows = [
        row
        for table in read_columns(store, list(list_parts(store, "transcripts")), ("source_uri", "status", "text"))
        for row in table.to_pylist()
    ]
    assert sorted(row["source_uri"] for row in rows) == [f"{bucket}/calls/{n:03d}.flac" for n in range(n_files)]
    assert {row["status"] for row in rows} == {"landed"}

    # Two at the start, one in the killed worker's place, one that joined.
    (record,) = read_records(store)
    assert record.counts["model_loads"] == 4
    loads = [line for line in logs_of(done.flow_run_id) if line.startswith("model loaded in")]
    assert len(set(loads)) == 4
    assert "cpu-1" not in workers_of(cluster.address), "the one that was cut off was never missed"
    (third,) = joined
    address = _address(cluster.address, third.name)
    assert done_by["gpu", address] > 0, f"the worker that joined did nothing: {done_by}"
    assert sum(count for (kind, _), count in done_by.items() if kind == "gpu") >= n_files, "a window is a task here"
    # The run's processes are gone from every machine, and so is its spool.
    there = [machine for machine in cluster.started if machine.name != "cpu-1"]
    until(lambda: not any(map(_processes_of, there)))
    assert list(_keys(cluster, "spool/")) == []


def _address(scheduler: str, name: str) -> str:
    from distributed import Client

    with Client(scheduler, set_as_default=False, timeout=20) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
    return next(address for address, told in workers.items() if str(told["name"]) == name)


def _processes_of(machine: Machine) -> list[int]:
    return [pid for pid in below(machine.process.pid) if "-worker" in command(pid) and "runners.worker" in command(pid)]


def _keys(cluster: Machines, prefix: str) -> Iterator[str]:
    import boto3

    client = boto3.client("s3", endpoint_url=cluster.environment["AWS_ENDPOINT_URL"])
    yield from (found["Key"] for found in client.list_objects_v2(Bucket="cluster", Prefix=prefix).get("Contents", []))
