"""SOURCE: every name, every page, and the certainty that what is read is what was listed."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stt_engine.errors import AccessDenied, AudioTooLarge, SourceChanged, SourceGone, SourceNotFound
from tasks import s3
from tasks.discover import discover
from tasks.source import check_source, confirm_unchanged, fetch, list_audio
from tasks.types import AudioFile
from tests.tasks.builders import NEW_LINE, NOON, ODD_NAMES
from tests.tasks.conftest import Endpoint


@pytest.fixture(params=["local", "moto", pytest.param("ceph", marks=pytest.mark.ceph), "memory"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty SOURCE of each kind."""
    if request.param == "local":
        (tmp_path / "audio in").mkdir()
        return str(tmp_path / "audio in")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/audio in"
    endpoint: Endpoint = request.getfixturevalue(f"{request.param}_endpoint")
    for name, value in endpoint.environment().items():
        monkeypatch.setenv(name, value)
    name = f"calls-{uuid.uuid4().hex[:12]}"
    endpoint.client().create_bucket(Bucket=name)
    return f"s3://{name}/audio in"


def put(source: str, key: str, content: bytes) -> None:
    if source.startswith("s3://"):
        s3.connect().put(*s3.split_uri(f"{source}/{key}"), content)
    elif source.startswith("memory://"):
        fsspec.filesystem("memory").pipe_file(f"{source.removeprefix('memory:/')}/{key}", content)
    else:
        path = Path(source, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def remove(source: str, key: str) -> None:
    if source.startswith("s3://"):
        s3.connect().delete(*s3.split_uri(f"{source}/{key}"))
    elif source.startswith("memory://"):
        fsspec.filesystem("memory").rm(f"{source.removeprefix('memory:/')}/{key}")
    else:
        Path(source, key).unlink()


def test_odd_names_are_listed_and_read_exactly(source: str, tmp_path: Path) -> None:
    names = list(ODD_NAMES) if "s3" in source else [*ODD_NAMES, NEW_LINE]
    if source.startswith("memory"):
        names.remove("back\\slash.wav")  # that file system turns it round
    for name in names:
        put(source, name, name.encode())
    files = {file.key: file for file in list_audio(source)}
    assert set(files) == set(names)
    for name in names:
        file = files[name]
        assert file.uri.endswith(f"{source.partition('://')[2] or source}/{name}")
        assert file.size_bytes == len(name.encode())
        fetched = fetch(file, tmp_path)
        assert fetched.path.read_bytes() == name.encode()
        assert fetched.content_sha256 == hashlib.sha256(name.encode()).hexdigest()
        fetched.discard()
        assert fetched.path.exists() is not fetched.temporary


def test_both_unicode_forms_of_a_name_are_two_files_and_one_pattern(source: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, "나눔.wav") for form in ("NFC", "NFD"))
    put(source, composed, b"1")
    put(source, decomposed, b"2")
    put(source, "다른.wav", b"3")
    assert {file.key for file in list_audio(source, [unicodedata.normalize("NFC", "나*.wav")])} == {
        composed,
        decomposed,
    }
    assert {file.key for file in list_audio(source, [unicodedata.normalize("NFD", "나*.wav")])} == {
        composed,
        decomposed,
    }


def test_what_is_passed_over(source: str) -> None:
    for key in (".hidden.wav", "a/.git/x.wav", "notes.txt", "a/b.WaV", "a/c.parquet", "wav", "d.mp3"):
        put(source, key, b"x")
    put(source, "tables/transcripts/x.wav", b"x")
    inside = f"{source}/tables/"
    if source.startswith("memory"):
        inside = next(iter(list_audio(source, ["tables/**"]))).uri.partition("/transcripts")[0]
    assert sorted(file.key for file in list_audio(source, exclude=inside)) == ["a/b.WaV", "d.mp3"]
    assert sorted(file.key for file in list_audio(source, ["**"], exclude=inside)) == [
        "a/b.WaV", "a/c.parquet", "d.mp3", "notes.txt", "wav",
    ]  # fmt: skip
    assert sorted(file.key for file in list_audio(source, ["*.MP3", "a/*.wav"])) == ["a/b.WaV", "d.mp3"]


def test_a_single_file_is_a_source(source: str, tmp_path: Path) -> None:
    put(source, "one 하나#.bin", b"abc")
    put(source, "one 하나#.bin2", b"abcd")
    (file,) = list_audio(f"{source}/one 하나#.bin")
    assert (file.key, file.size_bytes) == ("one 하나#.bin", 3)
    assert fetch(file, tmp_path).path.read_bytes() == b"abc"


def test_a_source_that_does_not_exist(source: str) -> None:
    put(source, "there/x.wav", b"x")
    for missing in (f"{source}/nowhere", f"{source}/ther"):
        with pytest.raises(SourceNotFound):
            check_source(missing)
    check_source(f"{source}/there")


def test_a_bucket_that_does_not_exist(s3_endpoint: Endpoint) -> None:
    with pytest.raises(SourceNotFound, match="no bucket"):
        check_source(f"s3://no-such-{uuid.uuid4().hex[:8]}")


@pytest.mark.parametrize("uri", ["nosuchprotocol://x/y", "gs-or-what://", "s3://"])
def test_a_protocol_that_nobody_serves(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSCRIBE_ALLOWED_PROTOCOLS", "nosuchprotocol,gs-or-what,s3")
    with pytest.raises(SourceNotFound):
        check_source(uri)


def test_an_empty_bucket_is_an_empty_source(bucket: str) -> None:
    assert list(list_audio(f"s3://{bucket}")) == []


def test_more_than_a_page_of_keys(s3_endpoint: Endpoint, bucket: str) -> None:
    client = s3_endpoint.client()
    keys = [f"calls/{number:05d} a+b.wav" for number in range(1_050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b"x"), keys))
    assert [f"calls/{file.key}" for file in list_audio(f"s3://{bucket}/calls")] == keys
    first = next(iter(list_audio(f"s3://{bucket}/calls/")))
    assert (first.key, first.size_bytes, first.etag) == ("00000 a+b.wav", 1, hashlib.md5(b"x").hexdigest())
    assert abs(first.modified_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_listing_holds_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 pages through the real generator; only the answers of the store are made here."""

    class Pages:
        def list(self, bucket: str, prefix: str) -> Any:
            return (s3.S3Object(f"{prefix}{n:07d}.wav", 1, NOON, "e") for n in range(200_000))

    monkeypatch.setattr(s3, "connect", Pages)
    tracemalloc.start()
    assert sum(1 for _ in list_audio("s3://bucket/prefix")) == 200_000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2_000_000


def test_a_file_that_grows_is_left_alone(source: str, tmp_path: Path) -> None:
    put(source, "a.wav", b"first")
    (file,) = list_audio(source)
    put(source, "a.wav", b"second, longer")
    with pytest.raises(SourceChanged):
        fetch(file, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    (again,) = list_audio(source)
    assert again.version != file.version or source.startswith("memory")
    fetch(again, tmp_path).discard()


def test_new_content_of_the_same_size_is_another_version(tmp_path: Path, bucket: str) -> None:
    put(f"s3://{bucket}/x", "a.wav", b"aaaa")
    (file,) = list_audio(f"s3://{bucket}/x")
    put(f"s3://{bucket}/x", "a.wav", b"bbbb")
    with pytest.raises(SourceChanged):
        fetch(file, tmp_path)
    local = tmp_path / "b.wav"
    local.write_bytes(b"aaaa")
    (file,) = list_audio(str(local))
    local.write_bytes(b"bbbb")
    os.utime(local, ns=(0, int(file.modified_at.timestamp() * 1e9) + 5_000))
    with pytest.raises(SourceChanged):
        fetch(file)
    with pytest.raises(SourceChanged):
        confirm_unchanged(file)


def test_a_file_that_is_deleted(source: str, tmp_path: Path) -> None:
    put(source, "a.wav", b"first")
    put(source, "b.wav", b"stays")
    file = next(iter(list_audio(source, ["a.wav"])))
    remove(source, "a.wav")
    with pytest.raises(SourceGone, match=r"a\.wav"):
        fetch(file, tmp_path)


def test_limits_and_empty_files(source: str, tmp_path: Path) -> None:
    put(source, "big.wav", b"x" * 3_000_000)
    put(source, "empty.wav", b"")
    big, empty = sorted(list_audio(source), key=lambda file: file.key)
    with pytest.raises(AudioTooLarge, match=r"big\.wav"):
        fetch(big, tmp_path, max_bytes=2_999_999)
    lying = replace(big, size_bytes=10)  # a store whose listing says less than it sends
    with pytest.raises((AudioTooLarge, SourceChanged)):
        fetch(lying, tmp_path, max_bytes=2_000_000)
    assert fetch(big, tmp_path, max_bytes=3_000_000).path.stat().st_size == 3_000_000
    assert fetch(empty, tmp_path).path.read_bytes() == b""


@pytest.mark.ceph
def test_a_foreign_bucket_is_denied(ceph_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = f"calls-{uuid.uuid4().hex[:8]}"
    client = ceph_endpoint.client()
    client.create_bucket(Bucket=name)
    client.put_object(Bucket=name, Key="a.wav", Body=b"x")
    for user, secret in (("reader", None), ("test", "wrong"), ("nobody", None)):
        for key, value in ceph_endpoint.environment(user, secret).items():
            monkeypatch.setenv(key, value)
        with pytest.raises(AccessDenied, match="refuses access"):
            check_source(f"s3://{name}")
        with pytest.raises(AccessDenied, match=r"a\.wav"):
            fetch(AudioFile(f"s3://{name}/a.wav", "a.wav", None, 1, NOON), tmp_path)


def test_local_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.wav").write_bytes(b"x")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "broken.wav").symlink_to(tmp_path / "nowhere")
    assert [file.key for file in list_audio(str(tmp_path))] == ["linked/a.wav", "real/a.wav"]


def test_a_name_that_is_not_utf8_is_named_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.wav")).write_bytes(b"x")
    (tmp_path / "good.wav").write_bytes(b"x")
    assert [file.key for file in list_audio(str(tmp_path))] == ["good.wav"]
    assert "bad\\udcff.wav" in caplog.text


def test_dates_order_and_patience(tmp_path: Path) -> None:
    for hours in range(6):
        path = tmp_path / f"{(hours * 5) % 6}.wav"
        path.write_bytes(b"x")
        moment = (NOON + timedelta(hours=(hours * 5) % 6)).timestamp()
        os.utime(path, (moment, moment))
    keys = lambda **filters: [file.key for file in discover(str(tmp_path), **filters)]  # noqa: E731
    assert keys() == [f"{n}.wav" for n in range(6)]
    assert keys(newest_first=True) == [f"{n}.wav" for n in reversed(range(6))]
    assert keys(modified_since=NOON + timedelta(hours=2), modified_before=NOON + timedelta(hours=4)) == [
        "2.wav",
        "3.wav",
    ]
    assert keys(modified_since=(NOON + timedelta(hours=5)).replace(tzinfo=None)) == ["5.wav"]
    found = discover(str(tmp_path), settle_s=300, now=NOON + timedelta(hours=5, seconds=299))
    assert [file.key for file in found] == [f"{n}.wav" for n in range(5)]
    assert (found.listed, found.deferred) == (6, 1)


_names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(
    lambda name: "/" not in name and not name.startswith(".") and "\\" not in name and len(name.encode()) < 120
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=_names, folder=_names)
def test_any_name_round_trips(source: str, tmp_path: Path, name: str, folder: str) -> None:
    if source.startswith("memory") and ("::" in folder + name or (folder + name) != (folder + name).strip()):
        return
    unique = uuid.uuid4().hex
    put(source, f"{unique}/{folder}/{name}.wav", name.encode())
    (file,) = list_audio(f"{source}/{unique}")
    assert file.key == f"{folder}/{name}.wav"
    fetched = fetch(file, tmp_path)
    assert fetched.path.read_bytes() == name.encode()
    fetched.discard()
