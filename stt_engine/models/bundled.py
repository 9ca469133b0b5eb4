"""The built-in model: a very small real Whisper for the demo and the tests, not for use (see NOTICE)."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from functools import cache
from importlib.resources import files
from pathlib import Path

from stt_engine.models.cache import publish

FIXTURE = "fixture"


def unpack_fixture(root: Path) -> Path:
    """Its directory under the cache `root`: Hugging Face format, with the CTranslate2 form in `ct2/`."""
    return publish(root / "fixture" / _archive_sha256()[:12], _unpack)


@cache
def _archive_sha256() -> str:
    return hashlib.sha256(_archive().read_bytes()).hexdigest()


def _archive() -> Path:
    return Path(str(files("stt_engine.assets") / "fixture.tar.xz"))


def _unpack(folder: Path) -> None:
    # By hand: tarfile's own extraction filters differ between the patch releases of Python that we support.
    with tarfile.open(_archive(), "r:xz") as archive:
        for member in archive:
            if member.isdir():
                (folder / member.name).mkdir()
            elif (content := archive.extractfile(member)) is not None:
                with content, (folder / member.name).open("wb") as target:
                    shutil.copyfileobj(content, target, 1 << 20)
