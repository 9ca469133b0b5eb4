"""A PostgreSQL of the tests' own, from the binaries that Debian installs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deployments.site import free_port, running, wait_until

BINARIES = ("initdb", "postgres", "pg_isready")


def binary(name: str) -> str | None:
    """Debian keeps the server's binaries off the path, one folder a version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))


def missing_binaries() -> str | None:
    """Why no database can run here; None when one can."""
    missing = [name for name in BINARIES if binary(name) is None]
    if not missing and os.geteuid() == 0 and unprivileged_user() is None:
        return "no PostgreSQL here: it refuses to run as root, and there is no user postgres"
    return f"no PostgreSQL here: {', '.join(missing)} missing (apt: postgresql)" if missing else None


def unprivileged_user() -> str | None:
    """The user to run as; None for the one that runs the tests."""
    try:
        return pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
    except KeyError:
        return None


@contextmanager
def running_postgres() -> Iterator[str]:
    """The address of an empty database, for SQLAlchemy with asyncpg; gone afterwards."""
    user = unprivileged_user()
    # Not below pytest's folder, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="nightscribe-postgres-"))
    try:
        if user:
            shutil.chown(folder, user)
        port = free_port()
        files = folder / "files"
        options = ("--auth=trust", "--username=prefect", "--encoding=UTF8", "--no-sync")
        subprocess.run(
            [str(binary("initdb")), f"--pgdata={files}", *options],
            cwd=folder, user=user, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        # Nothing of it outlives the test: it need not reach the disk.
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(folder), "fsync": "off"}
        command = (str(binary("postgres")), "-D", str(files), "-p", str(port))
        command += tuple(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
        ready = [str(binary("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
        log = folder / "postgres.log"
        with running(command, log, dict(os.environ), user=user):
            wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, 60, log.read_text)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
