"""`nightscribe doctor`: everything that a run needs, looked at for real; each line says what to do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flows.console import stdout
from flows.prefect_api import no_answer
from stt_engine import models
from stt_engine.devices import choose_devices, usable_cores
from stt_engine.errors import NightscribeError
from stt_engine.loading import AUTO_ORDER, load_backend, package_missing
from tasks.listing import check_source
from tasks.storage import open_store

EXIT_DONE, EXIT_LACKING = 0, 1
BUILT_IN = "fixture"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, whether it is well, and what to do if it is not."""

    subject: str
    state: str
    """ok, missing (only needed if you want it), or bad (a run would fail)."""
    said: str


def examine(source: str | None, dest: str | None, model: str) -> int:
    """Print the findings; exit status 1 when a run would fail."""
    signs = {"ok": "[green]ok     [/green]", "missing": "[yellow]missing[/yellow]", "bad": "[red]bad    [/red]"}
    bad = 0
    for finding in _findings(source, dest, model):
        bad += finding.state == "bad"
        stdout.print(f"{signs[finding.state]} {finding.subject}: ", end="", highlight=False)
        stdout.print(finding.said, highlight=False, markup=False, soft_wrap=True)
    return EXIT_LACKING if bad else EXIT_DONE


def _findings(source: str | None, dest: str | None, model: str) -> Iterator[Finding]:
    yield from _devices()
    yield from _backends(model)
    yield _spool()
    if source is not None:
        yield _checked("source " + source, lambda: check_source(source), "can be listed")
    if dest is not None:
        yield _checked(
            "destination " + dest,
            lambda: open_store(dest).prove(),
            "can be written, and refuses a second exclusive create",
        )
    yield _prefect()


def _devices() -> Iterator[Finding]:
    names = choose_devices("auto")
    if names == ("cpu",):
        cores = usable_cores()
        yield Finding(
            "device", "ok", f"cpu, {cores} cores; no CUDA device is visible (nvidia-smi tells why, if one should be)"
        )
        return
    for name in names:
        yield Finding("device", "ok", f"{name}{_memory_of(name)}")


def _memory_of(device: str) -> str:
    try:
        import torch
    except ImportError:
        return " (its memory is shown with pip install 'nightscribe[all]')"
    free_bytes, total_bytes = torch.cuda.mem_get_info(int(device.partition(":")[2]))
    return f", {free_bytes / 2**30:.1f} of {total_bytes / 2**30:.1f} GiB free"


def _backends(model: str) -> Iterator[Finding]:
    try:
        path = models.resolve(model)
    except NightscribeError as error:
        yield Finding(f"model {model}", "bad", str(error))
        path = models.resolve(BUILT_IN)  # the backends are still worth a look
    else:
        yield Finding(f"model {model}", "ok", str(path))
    working = 0
    lacking: list[Finding] = []
    for name in AUTO_ORDER:
        if missing := package_missing(name):
            said = f"the package {missing} is not installed; if you want it: pip install 'nightscribe[all]'"
            lacking.append(Finding(f"backend {name}", "missing", said))
            continue
        try:
            backend = load_backend(name, str(path), cpu_threads=1)
        except NightscribeError as error:
            lacking.append(Finding(f"backend {name}", "missing", str(error)))
            continue
        working += 1
        said = f"decoded a second of speech on {backend.device} in {backend.compute_type}"
        backend.close()
        yield Finding(f"backend {name}", "ok", said)
    for finding in lacking:
        yield finding if working else Finding(finding.subject, "bad", finding.said)


def _spool() -> Finding:
    folder = os.environ.get("NIGHTSCRIBE_ADVANCED__SPOOL") or tempfile.gettempdir()
    if "://" in folder:
        return Finding("spool", "ok", f"{folder} (looked at when a run starts)")
    free_bytes = shutil.disk_usage(folder).free
    hours = free_bytes / (2 * 16_000 * 3600)
    said = f"{folder} has {free_bytes / 2**30:.1f} GiB free, room for {hours:.0f} h of audio in waiting"
    if free_bytes < 2**30:
        return Finding("spool", "bad", f"{said}; free some, or set NIGHTSCRIBE_ADVANCED__SPOOL to another folder")
    return Finding("spool", "ok", said)


def _checked(subject: str, check: Callable[[], None], fine: str) -> Finding:
    try:
        check()
    except NightscribeError as error:
        return Finding(subject, "bad", str(error))
    return Finding(subject, "ok", fine)


def _prefect() -> Finding:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        said = "no PREFECT_API_URL: runs start a server of their own; set it to see them in a lasting UI"
        return Finding("prefect", "ok", said)
    if (reason := no_answer(url)) is not None:
        return Finding("prefect", "bad", reason)
    return Finding("prefect", "ok", f"{url} answers")
