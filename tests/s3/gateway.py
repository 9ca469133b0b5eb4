"""Ceph's gateway over one in-memory OSD: a real S3 server on loopback, up in about five seconds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BINARIES = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool", "curl", "setsid")


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    key: str
    secret: str


def missing_binaries() -> str | None:
    """Why the gateway cannot run here; None when it can."""
    missing = [name for name in BINARIES if shutil.which(name) is None]
    return (
        f"no real S3 here: {', '.join(missing)} missing (apt: radosgw ceph-mon ceph-osd ceph-common)"
        if missing
        else None
    )


@contextmanager
def running_gateway(folder: Path) -> Iterator[S3Server]:
    """A server that keeps everything below `folder`, which must not exist, and is gone afterwards."""
    port = _three_free_ports()
    try:
        subprocess.run([HERE / "rgw_up.sh", folder, str(port)], check=True, capture_output=True, timeout=150)
        yield S3Server(f"http://127.0.0.1:{port}", "test", "testsecret")
    finally:
        subprocess.run([HERE / "rgw_down.sh", folder], check=True, capture_output=True, timeout=60)


def _three_free_ports() -> int:
    """The first of three free ports in a row: the gateway's, and the monitor's two.

    Each process looks from a place of its own: two that start a gateway at the same moment would find the same ones.
    """
    for port in range(17480 + os.getpid() % 1000 * 7, 60000, 7):
        try:
            for offset in range(3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port
    raise RuntimeError("no three free ports in a row")
