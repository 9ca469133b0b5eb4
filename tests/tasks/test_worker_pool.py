"""Worker processes as they are: started, fed, killed. No Prefect here."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stt_engine.errors import (
    BackendUnavailable,
    CorruptAudio,
    DeadlineExceeded,
    DeviceFailed,
    DeviceOutOfMemory,
    MemoryLimitExceeded,
    ModelNotFound,
    RetryableError,
    UsageError,
    WorkerDied,
    WorkerFault,
)
from tasks.runners import seat
from tasks.runners.environment import worker_environment
from tasks.runners.pool import PoolClosed, WorkerPool
from tasks.runners.seat import PoolLimits
from tasks.runners.wire import WorkerLog
from tasks.runners.worker import WorkerSetup, loaded
from tests.tasks import worker_bodies as bodies
from tests.tasks.waiting import gone, pid_in, until

Open = Callable[..., WorkerPool]
BIRTH = WorkerSetup("tests.tasks.worker_bodies:remember_birth", arguments=("tiny", 7))


@pytest.fixture
def open_pool() -> Iterator[Open]:
    """Makes pools that are killed after the test, whatever became of it."""
    opened: list[WorkerPool] = []

    def make(*devices: str, kind: str = "cpu", **options: Any) -> WorkerPool:
        opened.append(WorkerPool(kind, devices or ("cpu",), threads=1, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for pool in opened:
        pool.kill()


@pytest.fixture
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat, "FIRST_PAUSE_S", 0.01)


def test_a_model_is_loaded_once_per_process(open_pool: Open) -> None:
    pool = open_pool("cpu", "cpu", setup=BIRTH)
    pool.warm_up()
    with ThreadPoolExecutor(8) as callers:
        pids = set(callers.map(lambda _: pool.call(bodies.pid), range(40)))
        until(lambda: len(pool.loads) == 2)
    assert pids <= {load.pid for load in pool.loads}
    assert len({load.pid for load in pool.loads}) == 2
    assert os.getpid() not in pids


def test_a_killed_worker_is_replaced_and_loads_once_more(open_pool: Open) -> None:
    pool = open_pool(setup=BIRTH)
    first = pool.call(bodies.pid)
    os.kill(first, signal.SIGKILL)
    until(lambda: len(pool.loads) == 2)
    second = pool.call(bodies.pid)
    assert [load.pid for load in pool.loads] == [first, second]
    assert gone(first)


def test_a_worker_is_born_pinned(open_pool: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is set before the loader's first import, and nothing heavy was imported before it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    birth = open_pool("cuda:3", kind="gpu", setup=BIRTH).call(bodies.birth)
    assert (birth.device, birth.visible_devices, birth.threads) == ("cuda:0", "3", "1")
    assert birth.arguments == ("tiny", 7)
    assert "torch" not in birth.heavy_libraries
    assert "ctranslate2" not in birth.heavy_libraries
    assert birth.session_id != os.getsid(0)
    assert open_pool(setup=BIRTH).call(bodies.birth).visible_devices == ""


@pytest.mark.parametrize(
    ("device", "lent", "visible"),
    [
        ("cpu", None, ""),
        ("cpu", "0,1", ""),
        ("cuda", None, "0"),
        ("cuda:2", None, "2"),
        ("cuda:1", "4,6", "6"),
        ("cuda:0", "GPU-8f3a", "GPU-8f3a"),
    ],
)
def test_devices_count_from_what_is_lent(device: str, lent: str | None, visible: str) -> None:
    inherited = {} if lent is None else {"CUDA_VISIBLE_DEVICES": lent}
    made = worker_environment(device, threads=2, inherited=inherited, sys_path=["", "/a"])
    assert made["CUDA_VISIBLE_DEVICES"] == visible
    assert made["OMP_NUM_THREADS"] == "2"
    assert made["PYTHONPATH"] == f"{os.getcwd()}{os.pathsep}/a"


@pytest.mark.parametrize(("device", "lent"), [("cuda:1", "4"), ("gpu0", None), ("cuda:-1", None), ("", None)])
def test_devices_that_cannot_be_are_refused_before_anything_starts(device: str, lent: str | None) -> None:
    inherited = {} if lent is None else {"CUDA_VISIBLE_DEVICES": lent}
    with pytest.raises(UsageError, match=r"[Dd]evice"):
        worker_environment(device, threads=1, inherited=inherited, sys_path=[])


def test_what_was_running_is_named_when_its_worker_dies(open_pool: Open) -> None:
    pool = open_pool()
    with pytest.raises(
        WorkerDied, match=r"cpu worker on cpu \(pid \d+\) ended during b.mp3: killed by SIGSEGV"
    ) as caught:
        pool.call(bodies.crash, (signal.SIGSEGV,), what="b.mp3")
    assert caught.value.crashed
    with pytest.raises(WorkerDied, match="SIGKILL") as killed:
        pool.call(bodies.crash, (signal.SIGKILL,), what="b.mp3")
    assert not killed.value.crashed
    assert pool.call(bodies.double, (4,)) == 8


def test_a_call_is_killed_at_its_deadline(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool()
    pool.call(bodies.pid)
    started = tmp_path / "started"
    with pytest.raises(DeadlineExceeded, match=r"long\.wav took longer than its deadline of 0\.5 s"):
        pool.call(bodies.block, (started,), deadline_s=0.5, what="long.wav")
    assert gone(pid_in(started))
    assert pool.call(bodies.double, (4,), deadline_s=60.0) == 8
    assert len(pool.loads) == 2


def test_a_death_costs_nobody_else_their_call(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool("cpu", "cpu")
    outcomes: list[object] = []

    def one(number: int) -> object:
        try:
            if number == 3:
                pool.call(bodies.crash, (signal.SIGKILL,))
            return pool.call(bodies.double, (number,))
        except WorkerDied as died:
            return died

    with ThreadPoolExecutor(12) as callers:
        outcomes = list(callers.map(one, range(12)))
    assert isinstance(outcomes.pop(3), WorkerDied)
    assert outcomes == [2 * number for number in range(12) if number != 3]


def test_a_setup_that_fails_is_told_to_every_caller_and_not_tried_again(open_pool: Open) -> None:
    pool = open_pool("cpu", "cpu", setup=WorkerSetup("tests.tasks.worker_bodies:refuse_to_load", "/models/large"))
    with ThreadPoolExecutor(3) as callers:
        errors = [call.exception() for call in [callers.submit(pool.call, bodies.pid) for _ in range(3)]]
    assert [type(error) for error in errors] == [ModelNotFound] * 3
    assert {str(error) for error in errors} == {"no model in /models/large"}
    assert pool.pids == []
    with pytest.raises(ModelNotFound):
        pool.call(bodies.pid)


@pytest.mark.usefixtures("quick_restarts")
def test_workers_that_die_while_loading_cost_no_call(open_pool: Open, tmp_path: Path) -> None:
    setup = WorkerSetup("tests.tasks.worker_bodies:load_on_third_attempt", tmp_path / "counter")
    pool = open_pool(setup=setup)
    assert pool.call(bodies.what_is_loaded) == "loaded at attempt 3"
    assert len(pool.loads) == 1


@pytest.mark.usefixtures("quick_restarts")
def test_a_seat_whose_workers_keep_dying_is_given_up(open_pool: Open) -> None:
    pool = open_pool(setup=WorkerSetup("tests.tasks.worker_bodies:die_while_loading"))
    with pytest.raises(BackendUnavailable, match=r"5 cpu workers in a row ended on cpu.*while loading: exit code 3"):
        pool.call(bodies.pid)


@pytest.mark.usefixtures("quick_restarts")
def test_a_full_device_is_tried_again_some_times(open_pool: Open, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    pool = open_pool(setup=WorkerSetup("tests.tasks.worker_bodies:lack_memory", counter))
    with pytest.raises(DeviceOutOfMemory, match="the device is full"):
        pool.call(bodies.pid)
    assert counter.read_bytes() == b"x" * seat.START_ATTEMPTS


def test_exceptions_keep_their_type_and_bring_their_traceback(open_pool: Open) -> None:
    pool = open_pool()
    with pytest.raises(CorruptAudio) as caught:
        pool.call(bodies.raise_corrupt, ("b.mp3",))
    assert str(caught.value) == "b.mp3: nothing of it decodes"
    (note,) = caught.value.__notes__
    assert "worker_bodies.py" in note
    assert "ValueError: moov atom not found" in note
    with pytest.raises(ValueError, match="invalid literal"):
        pool.call(int, ("x",))


def test_exceptions_that_cannot_travel_are_told_clearly(open_pool: Open) -> None:
    pool = open_pool()
    with pytest.raises(WorkerFault, match=r"tests\.tasks\.worker_bodies\.Awkward: 418: teapot"):
        pool.call(bodies.raise_awkward)
    with pytest.raises(bodies.AwkwardCorruptAudio, match=r"^a\.wav: holds a lock"):
        pool.call(bodies.raise_with_lock)
    with pytest.raises(WorkerFault, match=r"return_lock returned \(lock\) cannot travel back"):
        pool.call(bodies.return_lock)
    with pytest.raises(WorkerFault, match="SystemExit: 5"):
        pool.call(bodies.leave)
    assert len(pool.loads) == 1


def test_a_device_error_replaces_its_worker(open_pool: Open) -> None:
    pool = open_pool()
    first = pool.call(bodies.pid)
    with pytest.raises(DeviceFailed):
        pool.call(bodies.raise_device_failed)
    assert pool.call(bodies.pid) != first


def test_functions_that_no_worker_can_import_are_refused(open_pool: Open) -> None:
    pool = open_pool()
    with pytest.raises(UsageError, match="Move it to the top level"):
        pool.call(lambda: 1)
    assert pool.pids == []


def test_settings_that_no_worker_can_be_sent_are_refused() -> None:
    with pytest.raises(UsageError, match="setup of the gpu workers cannot be sent"):
        WorkerPool("gpu", ["cpu"], setup=WorkerSetup("a:b", threading.Lock()))
    with pytest.raises(UsageError, match="at least one device"):
        WorkerPool("gpu", [])


def test_the_flow_itself_has_no_model() -> None:
    with pytest.raises(WorkerFault, match="No model is loaded in this process"):
        loaded()


def test_logs_come_home(open_pool: Open, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        open_pool().call(bodies.speak)
    spoken = [(r.name, r.levelname, r.getMessage().splitlines()[0]) for r in caplog.records if "runners" not in r.name]
    assert spoken[:3] == [
        ("tasks.spoken", "INFO", "three windows"),
        ("tasks.spoken", "ERROR", "went wrong"),
        ("somelibrary.part", "WARNING", "library warning"),
    ]
    assert spoken[3][:2] == ("py.warnings", "WARNING")
    assert "ValueError: inner" in next(r.getMessage() for r in caplog.records if "went wrong" in r.getMessage())


def test_a_log_line_is_handed_on_in_the_context_of_its_call(open_pool: Open) -> None:
    import contextvars

    file_name = contextvars.ContextVar[str]("file_name", default="none")
    seen: list[tuple[str, str]] = []

    def keep(record: WorkerLog) -> None:
        seen.append((file_name.get(), record.message.splitlines()[0]))
        raise RuntimeError("a handler's fault is not the worker's")

    pool = open_pool("cpu", "cpu", on_log=keep)

    def one(name: str) -> None:
        file_name.set(name)
        pool.call(bodies.speak)

    with ThreadPoolExecutor(2) as callers:
        list(callers.map(one, ["a.wav", "b.wav"]))
    assert {(name, "three windows") for name in ("a.wav", "b.wav")} <= set(seen)
    assert "none" not in {name for name, _ in seen}


def test_callers_are_served_in_the_order_they_came(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool()
    started, released, order = tmp_path / "started", tmp_path / "released", tmp_path / "order"
    with ThreadPoolExecutor(10) as callers:
        calls = [callers.submit(pool.call, bodies.block_until, (started, released))]
        pid_in(started)
        for number in range(8):
            calls.append(callers.submit(pool.call, bodies.append, (str(number), order)))
            until(lambda waiting=number + 1: len(pool._waiting) == waiting)  # type: ignore[misc]
        released.touch()
        for call in calls:
            call.result(timeout=20)
    assert order.read_text().split() == [str(number) for number in range(8)]


def test_no_more_workers_start_than_there_are_callers(open_pool: Open) -> None:
    pool = open_pool("cpu", "cpu", "cpu", "cpu")
    for number in range(5):
        assert pool.call(bodies.double, (number,)) == 2 * number
    assert len(pool.pids) == 1


def test_a_worker_is_recycled(open_pool: Open) -> None:
    by_calls = open_pool(limits=PoolLimits(recycle_after_calls=2))
    pids = [by_calls.call(bodies.pid) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    by_memory = open_pool(limits=PoolLimits(recycle_above_bytes=300 << 20))
    assert by_memory.call(bodies.pid) == by_memory.call(bodies.hold, (400 << 20,)) != by_memory.call(bodies.pid)


def test_a_worker_over_its_memory_limit_is_killed(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool(limits=PoolLimits(memory_bytes=300 << 20))
    with pytest.raises(MemoryLimitExceeded, match=r"during a\.ape: it held \d{3} MiB, its limit is 300 MiB"):
        pool.call(bodies.grow, (400 << 20, tmp_path / "started"), what="a.ape")
    assert pool.call(bodies.double, (4,)) == 8


@pytest.mark.usefixtures("quick_restarts")
def test_a_worker_that_is_too_large_before_its_first_call_is_no_files_fault(open_pool: Open) -> None:
    with pytest.raises(BackendUnavailable, match=r"it held \d+ MiB, its limit is 1 MiB"):
        open_pool(limits=PoolLimits(memory_bytes=1 << 20)).call(bodies.pid)


def test_a_deadline_is_each_steps_own(open_pool: Open) -> None:
    pool = open_pool()
    assert pool.call(bodies.sleep_in_steps, ([0.4] * 4,), deadline_s=1.2) == 4
    with pytest.raises(DeadlineExceeded, match=r"deadline of 1\.2 s"):
        pool.call(bodies.sleep_in_steps, ([0.4, 0.4, 60.0],), deadline_s=1.2)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_the_kernel_takes_a_worker_before_the_flow(open_pool: Open) -> None:
    score = Path(f"/proc/{open_pool().call(bodies.pid)}/oom_score_adj")
    assert int(score.read_text()) > int(Path("/proc/self/oom_score_adj").read_text())


def test_closing_lets_a_call_finish_and_killing_does_not(open_pool: Open, tmp_path: Path) -> None:
    started, released = tmp_path / "started", tmp_path / "released"
    pool = open_pool()
    with ThreadPoolExecutor(3) as callers:
        running = callers.submit(pool.call, bodies.block_until, (started, released))
        pid = pid_in(started)
        waiting = callers.submit(pool.call, bodies.pid)
        until(lambda: len(pool._waiting) == 1)
        closing = callers.submit(pool.close, 20.0)
        assert isinstance(waiting.exception(timeout=20), PoolClosed)
        released.touch()
        assert running.result(timeout=20) == pid
        closing.result(timeout=20)
    assert gone(pid)
    with pytest.raises(PoolClosed):
        pool.call(bodies.pid)

    pool = open_pool()
    with ThreadPoolExecutor(1) as callers:
        running = callers.submit(pool.call, bodies.block, (tmp_path / "blocked",))
        pid = pid_in(tmp_path / "blocked")
        pool.kill()
        error = running.exception(timeout=20)
    assert isinstance(error, PoolClosed)
    assert not isinstance(error, RetryableError)
    assert gone(pid)


def test_closing_does_not_wait_for_a_load(open_pool: Open, tmp_path: Path) -> None:
    pool = open_pool(setup=WorkerSetup("tests.tasks.worker_bodies:load_for_ever", tmp_path / "started"))
    pool.warm_up()
    until((tmp_path / "started").exists)
    (pid,) = pool.pids
    began_s = time.monotonic()
    pool.close(grace_s=60.0)
    assert gone(pid)
    assert time.monotonic() - began_s < 20.0


@pytest.mark.parametrize("body", ["block", "block_natively", "pid"])
def test_no_worker_outlives_a_killed_flow(tmp_path: Path, body: str) -> None:
    """The flow gets no chance to clean up: SIGKILL, while its worker is busy, deaf, or idle."""
    script = (
        "import sys, threading; from pathlib import Path; from tasks.runners.pool import WorkerPool\n"
        "from tests.tasks import worker_bodies as bodies\n"
        "pool, started = WorkerPool('cpu', ['cpu'], threads=1), Path(sys.argv[1])\n"
        "if sys.argv[2] != 'pid': pool.call(getattr(bodies, sys.argv[2]), (started,))\n"
        "started.write_text(str(pool.call(bodies.pid))); threading.Event().wait()\n"
    )
    started = tmp_path / "started"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    flow = subprocess.Popen([sys.executable, "-c", script, str(started), body], env=environment)
    try:
        until(lambda: started.exists() and started.read_text() != "")
        worker = int(started.read_text())
        assert not gone(worker)
    finally:
        flow.kill()
        flow.wait()
    until(lambda: gone(worker), within_s=2.0)
