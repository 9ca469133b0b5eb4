"""The task runner under Prefect's real engine and server, with real worker processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterTaskRunId
from prefect.states import Failed

from stt_engine.errors import CorruptAudio, DeadlineExceeded, ModelNotFound, StorageUnavailable, UsageError, WorkerDied
from tasks.retry import is_retryable
from tasks.runners.gpu_task_runner import GpuTaskRunner, running_task_runner
from tasks.runners.lanes import Lane, on_cpu_worker, on_gpu_worker
from tasks.runners.pool import PoolClosed
from tasks.runners.seat import PoolLimits
from tasks.runners.worker import WorkerSetup
from tests.tasks import runner_flows as flows
from tests.tasks.waiting import gone, pid_in, until
from tests.tasks.worker_bodies import Timed

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_each_body_runs_where_it_says() -> None:
    def night() -> Any:
        futures = [t.submit() for t in (flows.where_gpu, flows.where_cpu, flows.where_flow)]
        return [future.result() for future in futures], flows.loads(2)

    (gpu, cpu, flow_pid), loads = flows.run(night)
    assert len({gpu[0], cpu[0], os.getpid()}) == 3
    assert flow_pid == os.getpid()
    assert (gpu[1].arguments, cpu[1].arguments) == ("gpu", "cpu")
    assert gpu[1].visible_devices == ""
    assert {(load.kind, load.pid) for load in loads} == {("gpu", gpu[0]), ("cpu", cpu[0])}


def test_a_model_is_loaded_once_per_worker_and_once_more_after_a_kill() -> None:
    def night() -> Any:
        futures = [flows.where_gpu.submit() for _ in range(20)]
        first = {future.result()[0] for future in futures}
        flows.loads(2)
        os.kill(min(first), signal.SIGKILL)
        flows.loads(3)
        second = {future.result()[0] for future in [flows.where_gpu.submit() for _ in range(20)]}
        return first, second, flows.loads(3)

    first, second, loads = flows.run(night, flows.runner(gpu_workers_per_device=2))
    assert len(loads) == 3
    assert Counter(load.pid for load in loads).most_common(1)[0][1] == 1
    assert first | second <= {load.pid for load in loads}
    assert min(first) not in second


def test_a_worker_killed_in_a_task_costs_that_task_one_retry(tmp_path: Path) -> None:
    def night() -> Any:
        marker = tmp_path / "killed"
        futures = [flows.crash_once_at.submit(number, 5, marker) for number in range(12)]
        return [future.result() for future in futures], [future.task_run_id for future in futures], flows.loads(3)

    numbers, task_run_ids, loads = flows.run(night, flows.runner(gpu_workers_per_device=2))
    assert numbers == list(range(12))
    assert len(loads) == 3
    with get_client(sync_client=True) as client:
        # Task run rows arrive late.
        until(lambda: all(run.state and run.state.is_completed() for run in map(client.read_task_run, task_run_ids)))
        runs = [client.read_task_run(task_run_id) for task_run_id in task_run_ids]
    assert [run.run_count for run in runs] == [2 if number == 5 else 1 for number in range(12)]
    assert runs[5].name == "crash 5"


def test_only_retryable_errors_are_retried(tmp_path: Path) -> None:
    retried, not_retried = tmp_path / "retried", tmp_path / "not_retried"

    def night() -> Any:
        states = [flows.fail_retryably.submit(retried).wait, flows.fail_terminally.submit(not_retried).wait]
        for wait in states:
            wait()

    flows.run(night)
    assert len(retried.read_text().split()) == 3
    assert len(not_retried.read_text().split()) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StorageUnavailable("503"), True),
        (WorkerDied("killed"), True),
        (CorruptAudio("a.mp3"), False),
        (PoolClosed("ending"), False),
        (ValueError("ours to mend"), False),
        (TimeoutError("not one of ours"), False),
    ],
)
def test_the_retry_condition(error: Exception, expected: bool) -> None:
    assert is_retryable(flows.where_flow, None, Failed(data=error)) is expected  # type: ignore[arg-type]


def test_errors_reach_the_flow_with_their_type() -> None:
    def failing(path: Path) -> Any:
        def body() -> None:
            flows.fail_terminally.submit(path).result()

        return body

    def dying() -> None:
        flows.crash_named.submit(Path("/night/b.mp3")).result()

    with pytest.raises(CorruptAudio):
        flows.run(failing(Path(os.devnull)))
    with pytest.raises(WorkerDied, match=r"gpu worker on cpu .* ended during transcribe b\.mp3: killed by SIGKILL"):
        flows.run(dying)
    refusing = WorkerSetup("tests.tasks.worker_bodies:refuse_to_load", "/models/x")
    with pytest.raises(ModelNotFound, match="no model in /models/x"):
        flows.run(lambda: flows.where_gpu.submit().result(), flows.runner(gpu_setup=refusing))


def test_a_deadline_comes_from_the_argument_else_from_the_runner(tmp_path: Path) -> None:
    def from_argument() -> None:
        flows.block.submit(tmp_path / "a", Timed("c.wav", 0.3)).result()

    def from_runner() -> None:
        flows.block.submit(tmp_path / "b").result()

    with pytest.raises(DeadlineExceeded, match=r"c\.wav took longer than its deadline of 0\.3 s"):
        flows.run(from_argument)
    with pytest.raises(DeadlineExceeded, match=r"block-\w+ took longer than its deadline of 0\.2 s"):
        flows.run(from_runner, flows.runner(gpu_deadline_s=0.2))
    assert gone(pid_in(tmp_path / "a"))
    assert gone(pid_in(tmp_path / "b"))


def test_waiting_for_one_lane_does_not_starve_the_other(tmp_path: Path) -> None:
    started, released = tmp_path / "started", tmp_path / "released"

    def night() -> Any:
        futures = [flows.hold_cpu.submit(started, released) for _ in range(30)]
        pid_in(started)
        through = flows.append.submit("through", tmp_path / "gpu").result(timeout=60)
        finished = [future for future in futures if future.state.is_final()]
        released.touch()
        return through, finished

    assert flows.run(night) == ("through", [])


def test_logs_of_workers_reach_the_logger_and_the_task_runs_page(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("tasks.spoken").setLevel(logging.INFO)

    def night() -> Any:
        future = flows.speak.submit()
        future.result()
        return future.task_run_id

    with caplog.at_level(logging.INFO):
        task_run_id = flows.run(night)
    assert "three windows" in [record.getMessage() for record in caplog.records if record.name == "tasks.spoken"]

    def on_the_page() -> list[str]:
        with get_client(sync_client=True) as client:
            wanted = LogFilter(task_run_id=LogFilterTaskRunId(any_=[task_run_id]))
            logs = client.read_logs(wanted, limit=200)
        return [log.message for log in logs if log.level >= logging.INFO and log.name == "tasks.spoken"]

    until(lambda: len(on_the_page()) >= 2)
    assert [message.splitlines()[0] for message in on_the_page()] == ["three windows", "went wrong"]


def test_settings_survive_duplicating_and_pickling() -> None:
    chosen = GpuTaskRunner(
        gpu_devices=("cuda:0", "cuda:1"),
        gpu_workers_per_device=3,
        cpu_workers=5,
        gpu_setup=WorkerSetup("a:b", ("tiny",)),
        threads=9,
        gpu_deadline_s=11.0,
        cpu_limits=PoolLimits(recycle_after_calls=100),
        grace_s=1.5,
    )
    for twin in (chosen.duplicate(), cloudpickle.loads(cloudpickle.dumps(chosen))):
        assert twin is not chosen
        assert twin == chosen
        assert twin._settings == chosen._settings
        assert twin._max_workers == chosen._max_workers == 27
    assert chosen != GpuTaskRunner(gpu_devices=("cuda:0", "cuda:1"))
    with chosen as started:
        assert len(started.pools[Lane.GPU]._seats) == 6
        assert [seat.device for seat in started.pools[Lane.GPU]._seats][:3] == ["cuda:0", "cuda:1", "cuda:0"]
        assert started.pools[Lane.GPU].pids == []


def test_a_device_that_cannot_be_is_refused_when_the_flow_starts() -> None:
    with pytest.raises(UsageError, match="gpu0"):
        flows.run(lambda: None, flows.runner(gpu_devices=("gpu0",)))


def test_bodies_that_no_worker_could_import_are_refused_at_once() -> None:
    def nested() -> None: ...

    with pytest.raises(TypeError, match="top of its module"):
        on_gpu_worker(nested)
    with pytest.raises(TypeError, match="below @task"):
        on_cpu_worker(flows.where_flow)


def test_warming_up_loads_before_the_first_task() -> None:
    def night() -> Any:
        started = running_task_runner()
        assert started is not None
        started.warm_up(Lane.GPU)
        flows.loads(1)
        return flows.where_gpu.submit().result()[0], flows.loads(1)

    pid, loads = flows.run(night)
    assert [load.pid for load in loads] == [pid]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_no_worker_outlives_its_flow(prefect_server: Mapping[str, str], tmp_path: Path, ending: signal.Signals) -> None:
    """Both kinds of worker busy, retries ahead, tasks queued: the flow's end is everybody's, and soon."""
    environment = {**prefect_server, "PYTHONPATH": os.pathsep.join(sys.path)}
    flow = subprocess.Popen(
        [sys.executable, "-m", "tests.tasks.runner_flows", str(tmp_path)], env=environment, stderr=subprocess.PIPE
    )
    try:
        workers = [pid_in(tmp_path / "gpu", within_s=60.0), pid_in(tmp_path / "cpu", within_s=60.0)]
        assert not any(gone(pid) for pid in workers)
        flow.send_signal(ending)
        until(lambda: all(gone(pid) for pid in workers), within_s=2.0 if ending == signal.SIGKILL else 10.0)
        _, said = flow.communicate(timeout=30.0)
    finally:
        flow.kill()
        flow.wait()
    assert flow.returncode != 0
    assert not (tmp_path / "queued").exists()
    if ending != signal.SIGKILL:
        assert b"Crashed" in said
        assert b"AwaitingRetry" not in said


def test_overhead_of_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    batch = flows.Batch(tuple(flows.Chunk("f" * 32, i, i * 100, i * 100 + 100) for i in range(200)))

    def night() -> Any:
        flows.measure.submit(batch).result()
        began_s = time.perf_counter()
        sizes = [future.result() for future in [flows.measure.submit(batch) for _ in range(200)]]
        return sizes, (time.perf_counter() - began_s) / 200

    sizes, each_s = flows.run(night)
    with capsys.disabled():
        print(f"\n{each_s * 1000:.1f} ms a task with 200 dataclasses in its parameter")
    assert sizes == [200] * 200
