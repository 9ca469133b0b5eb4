"""A Dask cluster of separate processes, each on a machine of its own as far as the network goes.

As root on Linux every process lives in a network namespace with an address of its own, on a bridge that leads to the S3
server and nowhere else; elsewhere they are plain processes on loopback. They share no folder that a run would use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.tasks.waiting import until

ROOT = Path(__file__).parents[2]
PORT = 8786


@dataclass
class Machine:
    """One process and what it needs to be cut off."""

    name: str
    host: str
    process: subprocess.Popen[bytes]
    namespace: str | None

    def cut_off(self) -> None:
        """From one moment to the next nothing passes any more, in either direction; nobody is told."""
        if self.namespace is not None:
            _ip("-n", self.namespace, "link", "set", "eth0", "down")
        else:
            for pid in [self.process.pid, *below(self.process.pid)]:
                os.kill(pid, signal.SIGSTOP)

    def dask_worker(self) -> int:
        """The process id of the Dask worker below its Nanny."""
        (pid,) = (pid for pid in children(self.process.pid) if "spawn_main" in command(pid))
        return pid


@dataclass
class Machines:
    """The scheduler's address, and hands to start workers."""

    folder: Path
    bridge: str | None
    environment: dict[str, str]
    started: list[Machine] = field(default_factory=list)

    @property
    def gateway(self) -> str:
        """Where this process listens for them."""
        return "127.0.0.1" if self.bridge is None else f"{self._net}.1"

    @property
    def address(self) -> str:
        return f"tcp://{self.started[0].host}:{self._port}"

    def __post_init__(self) -> None:
        self._net = f"10.213.{os.getpid() % 250}"
        self._port = PORT if self.bridge else _free_port()

    def start_scheduler(self) -> None:
        self._start("scheduler", "dask_scheduler", "--port", str(self._port))
        until(lambda: _listens(self.started[0].host, self._port), within_s=30.0)

    def start_worker(self, name: str, resources: str, nthreads: int = 1) -> Machine:
        return self._start(
            name, "dask_worker", self.address, "--name", name, "--nthreads", str(nthreads), "--memory-limit", "0",
            "--resources", resources, "--local-directory", str(self.folder / name / "scratch"),
        )  # fmt: skip

    def _start(self, name: str, module: str, *arguments: str) -> Machine:
        own = self.folder / name
        (own / "tmp").mkdir(parents=True)
        host, namespace, prefix = "127.0.0.1", None, ()
        if self.bridge is not None:
            number = len(self.started) + 2
            host, namespace = f"{self._net}.{number}", f"{self.bridge}-{number}"
            _ip("netns", "add", namespace)
            _ip("link", "add", f"{self.bridge}v{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", f"{self.bridge}v{number}", "master", self.bridge, "up")
            for words in (("addr", "add", f"{host}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                _ip("-n", namespace, *words)
            _ip("-n", namespace, "link", "set", "lo", "up")
            prefix = ("ip", "netns", "exec", namespace)
        log = (own / "log").open("wb")
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", f"distributed.cli.{module}", *arguments, "--host", host, "--no-dashboard"],
            cwd=own,
            env=self.environment | {"TMPDIR": str(own / "tmp"), "NIGHTSCRIBE_CACHE_DIR": str(own / "cache")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        machine = Machine(name, host, process, namespace)
        self.started.append(machine)
        return machine

    def end(self) -> None:
        for machine in self.started:
            for pid in [machine.process.pid, *below(machine.process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            machine.process.wait()
            if machine.namespace is not None:
                _ip("netns", "del", machine.namespace)
        if self.bridge is not None:
            _ip("link", "del", self.bridge)


@contextmanager
def machines(folder: Path, variables: Callable[[str], dict[str, str]]) -> Iterator[Machines]:
    """No process yet. `variables`: the environment for all, from the address at which they find this process."""
    bridge = f"ns{os.getpid() % 100_000}" if _may_make_namespaces() else None
    made = Machines(folder, bridge, {})
    try:
        if bridge is not None:
            _ip("link", "add", bridge, "type", "bridge")
            _ip("addr", "add", f"{made.gateway}/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
        made.environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables(made.gateway)
        yield made
    finally:
        made.end()


@contextmanager
def forwarded(host: str, url: str) -> Iterator[str]:
    """`url`, which listens on loopback, under an address that other machines reach."""
    target = urlsplit(url)
    with socket.create_server((host, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    inner, _ = server.accept()
                except OSError:
                    return  # closed below
                outer = socket.create_connection((target.hostname, target.port))
                for one, other in ((inner, outer), (outer, inner)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://{host}:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def workers_of(address: str) -> dict[str, dict[str, Any]]:
    """What the scheduler tells of its workers, by name."""
    from distributed import Client

    with Client(address, set_as_default=False, timeout=20) as client:
        return {str(told["name"]): told for told in client.scheduler_info(n_workers=-1)["workers"].values()}


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def below(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *below(child))]


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _may_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"probe{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if tried.returncode == 0:
        _ip("netns", "del", name)
    return tried.returncode == 0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False
