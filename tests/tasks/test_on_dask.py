"""Runs on a Dask cluster that are refused before they connect, and what is sent to its workers."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from stt_engine.errors import BackendUnavailable, ModelFormatError, UsageError
from stt_engine.models import fingerprint, resolve
from tasks import gpu_work
from tasks.gpu_work import ModelSetup, load_model
from tasks.on_dask import check_dask, model_for_workers
from tasks.prepare import prepare
from tasks.runners.dask_cluster import ClusterChoice, connect
from tasks.runners.dask_task_runner import DaskTaskRunner
from tasks.settings import AdvancedSettings, RunSettings

ADDRESS = "tcp://10.0.0.5:8786"


def settings(*, source: str = "s3://calls", spool: str | None, address: str | None = ADDRESS) -> RunSettings:
    return RunSettings(
        source=source, dest="tables", task_runner="dask", dask_address=address, advanced=AdvancedSettings(spool=spool)
    )


@pytest.mark.parametrize("spool", [None, "/scratch", "scratch", "memory://spool"])
def test_a_spool_that_other_machines_cannot_read_is_refused_in_one_line(spool: str | None) -> None:
    with pytest.raises(UsageError, match=r"--spool .*tcp://10\.0\.0\.5:8786.*--spool s3://") as caught:
        check_dask(settings(spool=spool))
    assert "\n" not in str(caught.value)


def test_a_folder_as_source_is_refused_unless_every_machine_is_said_to_have_it() -> None:
    with pytest.raises(UsageError, match=r"SOURCE calls.*file:///"):
        check_dask(settings(source="calls", spool="s3://scratch"))
    check_dask(settings(source="file:///calls", spool="file:///spool"))


def test_a_cluster_of_its_own_may_use_this_machine() -> None:
    check_dask(settings(source="calls", spool=None, address=None))


@pytest.mark.parametrize("address", ["10.0.0.5:8786", "tcp://10.0.0.5", "tcp://kim:secret@10.0.0.5:8786", "http://x:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="tcp://HOST:PORT"):
        settings(spool="s3://scratch", address=address)


def test_an_address_without_the_runner_is_refused() -> None:
    with pytest.raises(ValidationError, match="task_runner dask"):
        RunSettings(source="calls", dest="tables", dask_address=ADDRESS)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BackendUnavailable, match=r"nightscribe\[dask\]"):
        check_dask(settings(spool=None, address=None))


def test_a_scheduler_that_is_not_there_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.runners.dask_cluster.CONNECT_S", 1.0)
    with pytest.raises(BackendUnavailable, match=r"--dask-address tcp://127\.0\.0\.1:9: no Dask scheduler") as caught:
        connect(ClusterChoice(address="tcp://127.0.0.1:9"))
    assert "\n" not in str(caught.value)


def test_workers_elsewhere_get_a_name_or_a_directory(tmp_path: Path) -> None:
    assert model_for_workers("fixture", resolve("fixture")) == "fixture"
    assert model_for_workers("some-org/some-repo", Path("/cache/x")) == "some-org/some-repo"
    assert model_for_workers(str(tmp_path), tmp_path) == str(tmp_path)


def test_a_cluster_of_gpus_is_prepared_on_a_machine_without_one(samples: Path, tmp_path: Path) -> None:
    places = {"source": f"file://{samples}", "dest": str(tmp_path / "tables")}
    on_cluster = RunSettings(
        **places, model="fixture", device="cuda", task_runner="dask", dask_address=ADDRESS,
        advanced=AdvancedSettings(spool=f"file://{tmp_path}"),
    )  # fmt: skip
    run = prepare(on_cluster)
    here = prepare(RunSettings(**places, model="fixture"))
    assert (run.devices, run.model_setup.model_path) == (("cuda",), "fixture")
    assert run.options_hash == here.options_hash, "the same night elsewhere would do everything again"
    assert run.model_setup.fingerprint == fingerprint(here.model_path)
    assert here.model_setup.fingerprint is None


def test_a_worker_with_other_weights_refuses_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = ModelSetup(model_path="fixture", backend="fake", fingerprint=fingerprint(resolve("fixture")))
    assert load_model("cpu", setup).backend.name == "fake"
    monkeypatch.setattr(gpu_work.models, "fingerprint", lambda _: "0" * 16)
    with pytest.raises(ModelFormatError, match="same directory"):
        load_model("cpu", setup)


def test_a_runner_is_the_same_after_a_copy_and_a_journey() -> None:
    runner = DaskTaskRunner(choice=ClusterChoice(address=ADDRESS), device="cuda", cpu_workers=3)
    assert runner == runner.duplicate() == pickle.loads(pickle.dumps(runner))
    assert runner != DaskTaskRunner(choice=ClusterChoice(address=None), device="cuda", cpu_workers=3)
