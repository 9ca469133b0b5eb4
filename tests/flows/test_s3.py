"""The flow with S3 at both ends: over moto, and over Ceph's gateway where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tasks.announce import Event, listening
from tasks.parts import list_parts, read_columns
from tasks.run_record import failures
from tasks.storage import open_store
from tasks.types import NightPlan
from tests.flows.conftest import CommandLine, Night
from tests.long_form import long
from tests.tasks.conftest import Endpoint, bucket, ceph_endpoint, moto_endpoint, s3_endpoint  # noqa: F401

COLUMNS = ("source_uri", "status", "error_type", "error_message", "duration_s", "text")
ODD = "zz/한국어 #1 100% 'a' {b}.flac"


def landed(dest: str) -> dict[str, dict[str, Any]]:
    store = open_store(dest)
    found: dict[str, dict[str, Any]] = {}
    for table in read_columns(store, list(list_parts(store, "transcripts")), COLUMNS):
        for row in table.to_pylist():
            key = row["source_uri"].partition("/calls/")[2]
            assert key not in found, "a file landed twice"
            found[key] = row
    return found


@pytest.mark.parametrize("n_others", [10, pytest.param(1_050, marks=long)], ids=["a few keys", "more than a page"])
def test_a_night_from_a_bucket_into_it(
    night: Callable[..., Night],
    command_line: CommandLine,
    s3_endpoint: Endpoint,  # noqa: F811
    bucket: str,  # noqa: F811
    samples: Path,
    n_others: int,
) -> None:
    client = s3_endpoint.client()
    source, dest = f"s3://{bucket}/calls", f"s3://{bucket}/tables"

    def put(key: str, content: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"calls/{key}", Body=content)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: put(f"aa/{number:05d}.flac", b"x"), range(n_others)))
    speech = (samples / "en_000.flac").read_bytes()
    for key in (ODD, "zz/gone.flac", "zz/overwritten.flac", "zz/plain.flac"):
        put(key, speech)
    put("zz/zz.txt", b"no audio")

    def meanwhile(event: Event) -> None:
        if isinstance(event, NightPlan) and event.batches:
            client.delete_object(Bucket=bucket, Key="calls/zz/gone.flac")
            put("zz/overwritten.flac", (samples / "ko_000.flac").read_bytes())

    with listening(meanwhile):
        first = night(source, dest, backend="fake", pattern=["zz/*.flac"], limit=4)
    assert (first.summary.discovered, first.summary.planned) == (4, 4)
    assert (first.summary.landed, first.summary.failed_terminal, first.summary.deferred) == (2, 1, 1)
    found = landed(dest)
    assert set(found) == {ODD, "zz/plain.flac", "zz/gone.flac"}
    assert found[ODD]["text"] == found["zz/plain.flac"]["text"] != ""
    assert found["zz/gone.flac"]["error_type"] == "SourceGone"
    assert "gone.flac" in found["zz/gone.flac"]["error_message"]
    (failure,) = failures(open_store(dest))
    assert failure.uri.endswith("gone.flac")

    second = night(source, dest, backend="fake", pattern=["zz/*.flac"])
    assert (second.summary.planned, second.summary.already_done) == (1, 2)
    assert landed(dest)["zz/overwritten.flac"]["text"] != found[ODD]["text"]

    # The first few of the others: not audio, and no more of them than asked for.
    third = night(source, dest, backend="fake", limit=3)
    assert (third.summary.planned, third.summary.failed_terminal) == (3, 3)
    done = command_line("run", source, dest, "--model", "fixture", "--pattern", "zz/*.flac", "--dry-run", "--json")
    assert done.status == 0, done.err
    assert (done.json["planned"], done.json["already_done"]) == (0, 3)


@pytest.mark.parametrize("place", ["source", "dest"])
def test_a_store_that_cannot_be_used_is_refused_before_anything_starts(
    command_line: CommandLine,
    s3_endpoint: Endpoint,  # noqa: F811
    bucket: str,  # noqa: F811
    samples: Path,
    place: str,
) -> None:
    places = {"source": str(samples), "dest": f"s3://{bucket}/tables"} | {place: "s3://no-such-bucket/x"}
    said = command_line("run", places["source"], places["dest"], "--model", "fixture")
    assert said.status == 2, said.err
    (line,) = said.err.splitlines()
    assert "no-such-bucket" in line


@pytest.mark.ceph
def test_wrong_credentials_are_refused_without_saying_them(
    command_line: CommandLine,
    ceph_endpoint: Endpoint,  # noqa: F811
    samples: Path,
) -> None:
    variables = ceph_endpoint.environment() | {"AWS_SECRET_ACCESS_KEY": "wrong-secret-word"}
    said = command_line("run", str(samples), "s3://tables-elsewhere/x", "--model", "fixture", **variables)
    assert said.status == 2, said.err
    (line,) = said.err.splitlines()
    assert "AWS_SECRET_ACCESS_KEY" in line
    assert "wrong-secret-word" not in said.err + said.out
