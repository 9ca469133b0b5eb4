"""Signs of life: by the store's clock, and by the process table where that says something."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tasks.liveness import Heartbeat, RunIdentity, beat, heartbeat_path, is_alive
from tasks.storage import Store


def elsewhere(run_id: str) -> RunIdentity:
    return replace(RunIdentity.here(run_id), host="another-machine", boot_id="another-boot")


def test_silence_is_measured_by_the_stores_clock(local_store: Store) -> None:
    run = elsewhere("one")
    now = beat(local_store, run)
    assert is_alive(local_store, run, store_now=now + timedelta(seconds=179))
    assert not is_alive(local_store, run, store_now=now + timedelta(seconds=181))
    path = Path(local_store.uri, heartbeat_path("one"))
    hours_ahead = now.timestamp() + 7200  # the server's clock runs ahead of ours; the next beat's does too
    os.utime(path, (hours_ahead, hours_ahead))
    assert is_alive(local_store, run, store_now=now + timedelta(seconds=7201))


def test_a_heartbeat_beats_and_says_goodbye(store: Store) -> None:
    run = elsewhere("one")
    first = beat(store, run)
    seen = threading.Event()
    replace_ = store.replace

    def watched(path: str, payload: bytes) -> None:
        replace_(path, payload)
        seen.set()

    with Heartbeat(store, run, every_s=0.01):
        store.replace = watched  # type: ignore[method-assign]
        assert seen.wait(20)
        assert is_alive(store, run, store_now=first)
    assert store.stat(heartbeat_path("one")) is None
    assert not is_alive(store, run, store_now=first)


def test_a_zombie_or_a_stranger_with_the_same_pid_is_no_sign_of_life() -> None:
    me = RunIdentity.here("one")
    assert not me.surely_gone()
    assert replace(me, process_started="1").surely_gone()
    assert not replace(me, process_started="1", host="another").surely_gone()
    assert not replace(me, process_started="1", pid_namespace="pid:[1]").surely_gone()
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet collected
    assert replace(me, pid=child.pid).surely_gone()
    child.wait()
    assert replace(me, pid=child.pid).surely_gone()
