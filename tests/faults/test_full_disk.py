"""A disk that fills in the middle of a night, of the tables or of the spool: it is named, nothing half-written is seen,
and when there is room again the next night lands what is left, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from stt_engine.errors import StorageUnavailable
from tasks.run_record import failures
from tasks.storage import open_store
from tests.engine.encoding import wav
from tests.faults.quick_night import quick_night
from tests.faults.runs import Runs, said
from tests.faults.small_disk import small_disk
from tests.flows.tables import query, rows
from tests.long_form import long, longer
from tests.prefect_server import PrefectServer

ROOM_BYTES = 64 << 20
SIZES_BYTES = range(4_096, 240_000, longer(12_288, 4_096))
N_QUICK, FILES_PER_PART = 8, 2
N_WHOLE = 8
SOME = ("--pattern", "en_0*.flac")
"""Eight of the source are enough, and end sooner."""


def check_whole(dest: Path, n_files: int) -> None:
    """Each file once, every part readable and with its flat parts, and nothing else left behind."""
    assert len(rows(dest)) == n_files
    tables = ("transcripts", "segments", "words")
    transcripts, segments, words = ({part.name for part in dest.glob(f"{table}/*/*.parquet")} for table in tables)
    assert transcripts == segments == words
    assert query("SELECT count(*) AS n FROM {segments}", dest)[0]["n"] > 0
    assert list(dest.rglob("*.tmp")) == []


@pytest.mark.parametrize("size_bytes", SIZES_BYTES)
def test_a_dest_that_fills_at_any_moment_loses_and_doubles_nothing(size_bytes: int, tmp_path: Path) -> None:
    """The first night may already fail to write its plan, or a part whose transcripts stand may lack its segments."""
    source = tmp_path / "calls"
    source.mkdir()
    for number in range(N_QUICK):
        (source / f"{number}.wav").write_bytes(wav(bytes(8_000)))
    with small_disk(tmp_path / "disk", size_bytes) as disk:
        dest = disk.root / "tables"
        store = open_store(str(dest))
        try:
            first = quick_night(source, store, files_per_part=FILES_PER_PART)
            errors, landed = [*first.errors], first.landed
        except StorageUnavailable as error:
            errors, landed = [error], 0
        for error in errors:
            assert str(dest) in str(error) and "No space left on device; free some space there" in str(error)
        assert bool(errors) == (landed < N_QUICK)
        assert list(dest.rglob("*.tmp")) == []
        if list(dest.glob("transcripts/*/*")):
            assert landed <= len(rows(dest)) <= N_QUICK, "a part of the truth is half-written or missing"
        disk.resize(ROOM_BYTES)
        second = quick_night(source, store, files_per_part=FILES_PER_PART)
        assert second.errors == ()
        check_whole(dest, N_QUICK)
        assert quick_night(source, store).planned == 0


@long
@pytest.mark.timeout(400)
def test_a_whole_night_on_a_dest_that_fills(
    server: PrefectServer, source: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 150_000) as disk:
        dest = disk.root / "tables"
        runs = Runs(server.url, source, tmp_path / "spool")
        full = runs.whole(dest, *SOME)
        assert full.status == 3, full.err
        assert "Traceback" not in full.err, full.err
        assert 0 < full.json["landed"] < N_WHOLE
        assert full.json["landed"] + full.json["failed_retryable"] == N_WHOLE
        lines = [line for line in full.err.splitlines() if "could not be landed" in line]
        assert lines and all(f"{dest}/" in line and "No space left on device; free some" in line for line in lines)
        assert said(dest).items() <= texts.items()
        disk.resize(ROOM_BYTES)
        again = runs.whole(dest, *SOME)
        assert again.status == 0, again.err
        assert said(dest).items() <= texts.items()
        check_whole(dest, N_WHOLE)


@long
@pytest.mark.timeout(400)
def test_a_whole_night_on_a_spool_that_fills(
    server: PrefectServer, source: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    dest = tmp_path / "tables"
    with small_disk(tmp_path / "disk", 200_000) as disk:
        spool = disk.root / "spool"
        runs = Runs(server.url, source, spool)
        full = runs.whole(dest, *SOME)
        assert full.status == 3, full.err
        assert "Traceback" not in full.err, full.err
        left = failures(open_store(str(dest)))
        assert 0 < len(left) == full.json["failed_retryable"] < N_WHOLE
        for failure in left:
            assert (failure.error_type, failure.retryable) == ("StorageUnavailable", True)
            assert f"spool {spool}/" in failure.message
            assert "No space left on device; free some space or choose another --spool" in failure.message
            assert failure.message in full.err
        assert list(spool.iterdir()) == []
        assert said(dest).items() <= texts.items()
        disk.resize(ROOM_BYTES)
        again = runs.whole(dest, *SOME)
        assert again.status == 0, again.err
    assert said(dest).items() <= texts.items()
    check_whole(dest, N_WHOLE)
    assert failures(open_store(str(dest))) == []
