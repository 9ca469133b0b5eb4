"""Sets up .venv with the pinned dependencies, once:   python scripts/bootstrap.py [EXTRA ...]

Standard library only. Works where the distribution left out ensurepip (Debian and Ubuntu without python3-venv): the
environment is made without pip, and pip comes from ensurepip, else from a pip that the user has, else straight from
the package index. A stamp in .venv lets the next call return at once while pyproject.toml and constraints.txt stay
as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import IO

import pip_wheel

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "nightscribe-installed.json"
LOG = VENV / "nightscribe-install.log"
SUPPORTED = ((3, 11), (3, 12), (3, 13))
PROGRESS_EVERY_S = 20.0


class SetupFailed(Exception):
    """Said in one paragraph; nothing was left half done that the next call does not mend."""


def say(line: str) -> None:
    print(f"setup: {line}", file=sys.stderr, flush=True)


def wanted_hash() -> str:
    """Of everything that decides what is installed, and of where: a moved checkout has a broken environment."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_installed(extras: set[str]) -> bool:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    return stamp["hash"] == wanted_hash() and extras <= set(stamp["extras"]) and venv_works()


def venv_works() -> bool:
    """True when .venv holds a Python of a version that we support."""
    if not PYTHON.exists():
        return False
    asked = subprocess.run(
        [PYTHON, "-c", "import sys; print(*sys.version_info[:2], sys.prefix)"],
        capture_output=True,
        text=True,
        check=False,
    )
    answer = asked.stdout.split(maxsplit=2)
    return (
        asked.returncode == 0
        and (int(answer[0]), int(answer[1])) in SUPPORTED
        and Path(answer[2].strip()).resolve() == VENV.resolve()
    )


def make_venv() -> None:
    if VENV.exists():
        if not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
            raise SetupFailed(f"{VENV} exists and is no virtual environment: move it away and call again.")
        say("the environment in .venv is unusable (moved, or its Python is gone): making it again")
        shutil.rmtree(VENV)
    say(f"making .venv with Python {sys.version.split()[0]} ({sys.executable})")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(VENV)


def has_pip() -> bool:
    asked = subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False)
    return asked.returncode == 0


def add_pip() -> None:
    """By ensurepip, by a pip that the user has, or from the index: whichever works first."""
    if subprocess.run([PYTHON, "-m", "ensurepip"], capture_output=True, check=False).returncode == 0 and has_pip():
        return
    say("this Python came without ensurepip: fetching pip itself")
    with tempfile.TemporaryDirectory() as folder:
        try:
            wheel = pip_wheel.fetch(Path(folder))
        except pip_wheel.NoPip as error:
            raise SetupFailed(str(error)) from error
        # A wheel is a zip that Python can run from, so pip installs itself.
        install = [PYTHON, f"{wheel}/pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not has_pip():
        raise SetupFailed(f"pip would not install itself into .venv: {done.stderr.strip() or done.stdout.strip()}")


def expectation(extras: set[str]) -> str:
    if extras & {"all", "transformers", "openai", "dev"}:
        return "with torch: about 0.6 GB to fetch where the index has a CPU build, 3 GB with CUDA; 3 to 15 minutes"
    return "about 0.25 GB to fetch; 1 to 4 minutes"


def install(extras: set[str]) -> None:
    target = f"{ROOT}[{','.join(sorted(extras))}]" if extras else str(ROOT)
    command: list[str | Path] = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--no-input", "--constraint", ROOT / "constraints.txt", "--editable", target]
    say(f"installing the pinned dependencies ({expectation(extras)}); details in .venv/{LOG.name}")
    started = time.monotonic()
    with LOG.open("w") as log:
        installing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        assert installing.stdout is not None
        with contextlib.ExitStack() as stack:
            stack.callback(installing.kill)  # nothing is left running when we are interrupted
            follow(installing.stdout, log, started)
            installing.wait()
            stack.pop_all()
    if installing.returncode != 0:
        last = "\n".join("  " + line for line in LOG.read_text().strip().splitlines()[-12:])
        raise SetupFailed(f"pip failed (whole log: {LOG}); it said last:\n{last}\nMend the cause and call again.")
    say(f"installed in {time.monotonic() - started:.0f} s")


def follow(lines: IO[str], log: IO[str], started: float) -> None:
    """Copies pip's output to the log and says now and then how far it is."""
    looked_up, spoke = 0, started
    for line in lines:
        log.write(line)
        looked_up += line.startswith(("Collecting ", "Processing "))
        now = time.monotonic()
        if line.startswith("Installing collected packages"):
            say(f"everything is fetched ({now - started:.0f} s); unpacking {line.count(',') + 1} packages")
            spoke = now
        elif now - spoke > PROGRESS_EVERY_S and not line.startswith("Successfully"):
            say(f"... {now - started:.0f} s, {looked_up} packages so far; now: {line.strip()[:80]}")
            spoke = now


def stamp(extras: set[str]) -> None:
    before: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        earlier = json.loads(STAMP.read_text())
        before = set(earlier["extras"]) if earlier["hash"] == wanted_hash() else set()
    partial = STAMP.with_suffix(".partial")
    partial.write_text(json.dumps({"hash": wanted_hash(), "extras": sorted(before | extras)}))
    partial.replace(STAMP)


def main(arguments: list[str]) -> int:
    extras = set(arguments)
    try:
        with (ROOT / ".venv.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # `make demo` and `make test` at once
            if is_installed(extras):
                return 0
            if not venv_works():
                make_venv()
            if not has_pip():
                add_pip()
            install(extras)
            stamp(extras)
    except SetupFailed as error:
        say(f"failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; call again to go on")
        return 130
    return 0


if __name__ == "__main__":
    os.environ.pop("PYTHONHOME", None)
    sys.exit(main(sys.argv[1:]))
