"""Prefect's embedded server, for runs that have no other; it ends with the command that started it, however that ends.

Prefect can start one itself, but imports the whole server into the flow's process to do so, which takes longer than all
else before the first file, and after a SIGTERM or a SIGKILL it lives on for ever, with its port and its database.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_GUARD = """
import os, signal, sys
pid = int(sys.argv[1])
handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
sys.stdin.buffer.read()  # ends with the process that holds the other end
try:
    os.kill(pid, signal.SIGTERM) if handle is None else signal.pidfd_send_signal(handle, signal.SIGTERM)
except ProcessLookupError:
    pass
"""
_POLL_S, _STOP_S = 0.05, 5.0
_PORT_TAKEN = 1
"""uvicorn's exit status where another process has the port by now."""


class EmbeddedServer:
    """Begins to start when it is made; `ready` waits for it and points this process's Prefect at it.

    In between there is time for what needs a core but no server.
    """

    def __init__(self) -> None:
        self._start()
        atexit.register(self.stop)  # before any of Prefect's own: what they still have to send arrives

    def _start(self) -> None:
        import prefect
        from prefect.settings import get_current_settings

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(prefect.__file__).parents[1]), "--factory",
                   "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(self._port),
                   "--log-level", "error", "--lifespan", "on"]  # fmt: skip
        environment = os.environ | {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1",
                                    "PREFECT__SERVER_FINAL": "1"}  # fmt: skip
        environment |= get_current_settings().to_environment_variables(exclude_unset=True)
        # Ctrl-C at a terminal reaches every process of its group. A child inherits what is blocked, so that the server
        # is still there while the run cleans up; without it Prefect's client tries again for more than a minute.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(command, env=environment)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # The guard is a process too, since nothing in this one runs any more when it is killed.
        guard = [sys.executable, "-S", "-c", _GUARD, str(self._process.pid)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        """Raises RuntimeError where it does not answer in `PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS`."""
        import httpx
        from prefect.context import refresh_global_settings_context
        from prefect.settings import get_current_settings

        within_s = get_current_settings().server.ephemeral.startup_timeout_seconds
        until_s = time.monotonic() + within_s
        tries = 0
        with httpx.Client(timeout=within_s) as client:
            while True:
                try:
                    if client.get(f"http://127.0.0.1:{self._port}/api/health").status_code == httpx.codes.OK:
                        break
                except httpx.TransportError:
                    pass  # it does not listen yet
                status = self._process.poll()
                if status == _PORT_TAKEN and tries < 3:
                    tries += 1
                    self._start()
                elif status is not None or time.monotonic() > until_s:
                    ended = "did not answer" if status is None else f"ended with status {status}"
                    raise RuntimeError(
                        f"Prefect's embedded server {ended} (PREFECT_HOME {get_current_settings().home}, "
                        f"{within_s} s allowed); what it said is above, and -v says more"
                    )
                time.sleep(_POLL_S)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{self._port}/api"
        refresh_global_settings_context()

    def stop(self) -> None:
        """At once, and without complaint where it is gone already."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_of_this_process: list[EmbeddedServer] = []


def start_embedded_server() -> EmbeddedServer | None:
    """The one of this process, begun at the first call; None where an API is set, which is then a lasting one's."""
    from prefect.settings import get_current_settings

    if not _of_this_process:
        if get_current_settings().api.url is not None:
            return None
        _of_this_process.append(EmbeddedServer())
    return _of_this_process[0]
