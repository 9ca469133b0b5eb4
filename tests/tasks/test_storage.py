"""DEST: the exclusive create on every kind of store, and who is refused."""

from __future__ import annotations

import http.server
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stt_engine.errors import AccessDenied, DestinationRefused, StorageUnavailable
from tasks import backoff, local_store
from tasks.storage import NotStored, Store, open_store
from tests.tasks.builders import NEW_LINE, ODD_NAMES
from tests.tasks.conftest import Endpoint

REAL_STORES = ["local", pytest.param("ceph", marks=pytest.mark.ceph)]
"""moto checks and writes in two steps, so a race may have two winners there."""


def test_create_read_replace_list_delete(store: Store) -> None:
    assert store.create_exclusive("a/one.parquet", b"first")
    assert not store.create_exclusive("a/one.parquet", b"second")
    assert store.read("a/one.parquet") == b"first"
    store.replace("a/one.parquet", b"third, longer")
    assert store.read("a/one.parquet") == b"third, longer"
    assert store.read_range("a/one.parquet", 2, 5) == b"ird"
    assert store.create_exclusive("a/b/two", b"")
    assert store.create_exclusive("ab/three", b"x")
    assert [(found.path, found.size_bytes) for found in store.list("a")] == [("a/b/two", 0), ("a/one.parquet", 13)]
    stored = store.stat("a/one.parquet")
    assert stored is not None
    assert stored.size_bytes == 13
    store.delete("a/one.parquet")
    store.delete("a/one.parquet")
    assert store.stat("a/one.parquet") is None
    with pytest.raises(NotStored):
        store.read("a/one.parquet")
    assert list(store.list("nothing/here")) == []


def test_odd_names_come_back_as_they_went(store: Store) -> None:
    for number, name in enumerate(ODD_NAMES):
        assert store.create_exclusive(f"odd/{name}", name.encode() + bytes([number]))
    assert {found.path for found in store.list("odd")} == {f"odd/{name}" for name in ODD_NAMES}
    for number, name in enumerate(ODD_NAMES):
        assert store.read(f"odd/{name}") == name.encode() + bytes([number])


@pytest.mark.parametrize("dest", REAL_STORES, indirect=True)
def test_of_many_writers_at_once_one_is_told_true(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda n: (n % 10, store.create_exclusive(f"race/{n % 10}", b"%d" % n), n), range(80)))
    winners = Counter(path for path, created, _ in told if created)
    assert winners == Counter(range(10))
    for path, created, n in told:
        if created:
            assert store.read(f"race/{path}") == b"%d" % n


def test_prove_passes_and_leaves_nothing(store: Store) -> None:
    store.prove()
    assert list(store.list("_probe")) == []


@pytest.mark.parametrize("dest", ["gs://bucket/x", "http://host/x", "memory://x", "", "s3://", "file:relative/..//"])
def test_only_disks_and_s3_are_destinations(dest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if dest.startswith("file:relative"):
        assert open_store(dest).uri.startswith(str(tmp_path))  # no scheme without //: a strange but local path
        return
    with pytest.raises(DestinationRefused):
        open_store(dest)


def test_file_uri_is_the_path_itself(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/a%20b").uri == f"{tmp_path}/a%20b"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", ".", "", "a\0b"])
def test_paths_stay_inside(local_store: Store, path: str) -> None:
    with pytest.raises(ValueError, match="inside DEST"):
        local_store.create_exclusive(path, b"")


@pytest.mark.parametrize("dest", REAL_STORES, indirect=True)
def test_a_line_end_in_a_name(store: Store) -> None:
    assert store.create_exclusive(f"odd/{NEW_LINE}", b"x")
    assert [found.path for found in store.list("odd")] == [f"odd/{NEW_LINE}"]
    assert store.read(f"odd/{NEW_LINE}") == b"x"


def test_a_file_as_dest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DestinationRefused, match="folder"):
        open_store(str(tmp_path / "file")).prove()


def test_a_dest_on_a_full_or_read_only_system_is_refused() -> None:
    with pytest.raises(DestinationRefused, match="cannot be written"):
        open_store("/proc/nightscribe").prove()


def test_a_disk_without_links_is_refused(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(local_store_os(), "link", no_links)
    with pytest.raises(DestinationRefused, match="hard links"):
        local_store.prove()


def local_store_os() -> object:
    return local_store.os


def test_no_temporary_file_is_seen_by_readers_or_left(local_store: Store, tmp_path: Path) -> None:
    local_store.create_exclusive("transcripts/x.parquet", b"1")
    local_store.create_exclusive("transcripts/x.parquet", b"2")
    local_store.replace("transcripts/y", b"3")
    assert sorted(p.name for p in (tmp_path / "dest").rglob("*") if p.is_file()) == ["x.parquet", "y"]


def test_sweep_removes_only_what_was_abandoned(local_store: Store, tmp_path: Path) -> None:
    old, young = tmp_path / "dest" / "_tmp" / "old.tmp", tmp_path / "dest" / "_tmp" / "young.tmp"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (1, 1))
    local_store.sweep()
    assert (old.exists(), young.exists()) == (False, True)


def test_a_bucket_that_is_not_there_is_refused(s3_endpoint: Endpoint) -> None:
    with pytest.raises(DestinationRefused, match="does not exist"):
        open_store(f"s3://no-such-{uuid.uuid4().hex[:8]}/x").prove()


@pytest.mark.ceph
def test_wrong_secrets_and_foreign_buckets_are_refused(
    ceph_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"tables-{uuid.uuid4().hex[:8]}"
    ceph_endpoint.client().create_bucket(Bucket=name)
    for user, secret in (("test", "wrong"), ("nobody", "wrong"), ("reader", "readersecret")):
        for key, value in ceph_endpoint.environment(user, secret).items():
            monkeypatch.setenv(key, value)
        with pytest.raises(DestinationRefused, match=r"refuses access.*AWS_ACCESS_KEY_ID") as refused:
            open_store(f"s3://{name}/x").prove()
        assert secret not in str(refused.value)
        with pytest.raises(AccessDenied):
            open_store(f"s3://{name}/x").replace("y", b"")


def test_without_credentials_the_message_says_which(monkeypatch: pytest.MonkeyPatch, moto_endpoint: Endpoint) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_endpoint.url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DestinationRefused, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/x").prove()


class _OldS3(http.server.BaseHTTPRequestHandler):
    """A store that has never heard of If-None-Match: every PUT replaces."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    answers: list[int]
    """Statuses to answer before serving."""
    seen: list[str]

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.end_headers()
        self.wfile.write(body)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append(self.command)
        if self.answers:
            self._answer(self.answers.pop(0))
        elif self.command == "PUT":
            self.objects[self.path] = body
            self._answer(200)
        elif self.command == "DELETE":
            self.objects.pop(self.path, None)
            self._answer(204)
        else:
            self._answer(200, self.objects[self.path])

    do_PUT = do_GET = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def old_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_OldS3]]:
    handler = type("Handler", (_OldS3,), {"objects": {}, "answers": [], "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name, value in Endpoint(f"http://127.0.0.1:{server.server_port}", "old").environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(backoff, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(backoff, "_pressure", backoff.Pressure())  # as of a new process
    yield handler
    server.shutdown()
    thread.join()


def test_a_store_that_ignores_if_none_match_is_refused(old_s3: type[_OldS3]) -> None:
    with pytest.raises(DestinationRefused, match="If-None-Match"):
        open_store("s3://bucket/x").prove()


def test_a_store_that_does_not_know_it_is_refused_at_once(old_s3: type[_OldS3]) -> None:
    old_s3.answers.append(501)
    with pytest.raises(DestinationRefused, match="conditional"):
        open_store("s3://bucket/x").prove()
    assert old_s3.seen == ["PUT"]


@pytest.mark.parametrize("status", [500, 503, 409, 429])
def test_passing_troubles_are_waited_out(old_s3: type[_OldS3], status: int) -> None:
    old_s3.answers.extend([status] * (backoff.ATTEMPTS - 1))
    assert open_store("s3://bucket/x").create_exclusive("y", b"z")
    assert old_s3.seen == ["PUT"] * backoff.ATTEMPTS


def test_a_store_that_stays_down_is_given_up_and_not_flooded(old_s3: type[_OldS3]) -> None:
    old_s3.answers.extend([503] * 100)
    with pytest.raises(StorageUnavailable, match="503"):
        open_store("s3://bucket/x").read("y")
    assert len(old_s3.seen) == backoff.ATTEMPTS


def test_a_store_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_WAIT_S", 0.001)
    for name, value in Endpoint("http://127.0.0.1:9", "none").environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageUnavailable, match="did not answer"):
        open_store("s3://bucket/x").read("y")


_names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(
    lambda name: "/" not in name and name not in (".", "..") and len(name.encode()) < 120
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=_names)
def test_any_name_round_trips(store: Store, name: str) -> None:
    folder = uuid.uuid4().hex
    assert store.create_exclusive(f"{folder}/{name}", name.encode())
    assert not store.create_exclusive(f"{folder}/{name}", b"")
    assert [found.path for found in store.list(folder)] == [f"{folder}/{name}"]
    assert store.read(f"{folder}/{name}") == name.encode()
