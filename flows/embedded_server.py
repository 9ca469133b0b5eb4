"""Prefect's embedded server, for runs that have no other; it ends with the command that started it, however that ends.

Prefect itself stops it when Python exits in peace. After a SIGTERM, which Prefect ends by the signal's own default, or
a SIGKILL it would live on for ever, with its port and its database.
"""

from __future__ import annotations

import signal
import subprocess
import sys

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


def start_embedded_server() -> int | None:
    """Starts it, with a guard beside it, unless an API is set; returns its process id. Does nothing the second time.

    The guard is a process too, since nothing in this one runs any more when it is killed.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return None
    server = SubprocessASGIServer()  # the one that every client of this process will ask for
    if not server.running:
        # Ctrl-C at a terminal reaches every process of its group. A child inherits what is blocked, so that the server
        # is still there while the run cleans up; without it Prefect's client tries again for more than a minute.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            server.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert server.server_process is not None
        guard = [sys.executable, "-S", "-c", _GUARD, str(server.server_process.pid)]
        _guards.append(subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True))
    return server.server_process.pid if server.server_process is not None else None


_guards: list[subprocess.Popen[bytes]] = []
"""Held, so that their pipes stay open."""
