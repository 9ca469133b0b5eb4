"""Single calls to S3 through a proxy that injects faults: what they return, what they raise, what they cost."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from stt_engine.errors import AccessDenied, SourceChanged, SourceGone, StorageUnavailable, UsageError
from tasks import backoff, s3
from tasks.fetch import fetch
from tasks.listing import list_audio
from tasks.storage import Store, open_store
from tasks.types import AudioFile
from tests.faults.s3_proxy import Fault, Rule, S3Proxy, running_proxy
from tests.tasks.conftest import Endpoint

PAYLOAD = bytes(range(256)) * 40
pytestmark = pytest.mark.ceph


@pytest.fixture
def proxy(ceph_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    monkeypatch.setattr(backoff, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(backoff, "_pressure", backoff.Pressure())
    with running_proxy(ceph_endpoint.url) as found:
        for name, value in Endpoint(found.url, "proxy").environment().items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def faulty(proxy: S3Proxy, ceph_endpoint: Endpoint) -> Store:
    """A DEST behind the proxy, which holds one object."""
    bucket = f"tables-{uuid.uuid4().hex[:12]}"
    ceph_endpoint.client().create_bucket(Bucket=bucket)
    store = open_store(f"s3://{bucket}/x")
    assert store.create_exclusive("one", PAYLOAD)
    proxy.forget()
    return store


def everything(store: Store) -> None:
    assert store.read("one") == PAYLOAD
    assert [stored.path for stored in store.list("")] == ["one"]
    assert store.read_range("one", 5, 9) == PAYLOAD[5:9]
    stored = store.stat("one")
    assert stored is not None and stored.size_bytes == len(PAYLOAD)
    assert store.create_exclusive("two", b"2")
    assert not store.create_exclusive("two", b"3")
    assert store.read("two") == b"2"
    store.replace("two", b"4")
    assert store.read("two") == b"4"
    store.delete("two")
    assert store.stat("two") is None


@pytest.mark.parametrize("fault", [Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST_ANSWER])
def test_a_fault_at_every_first_request_changes_no_answer(fault: Fault, proxy: S3Proxy, faulty: Store) -> None:
    proxy.obey(Rule(fault, times_per_key=1))
    everything(faulty)
    assert len(proxy.faults()) >= 6


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.SHORT])
def test_half_a_body_is_not_taken_for_the_whole(fault: Fault, proxy: S3Proxy, faulty: Store) -> None:
    proxy.obey(Rule(fault, ("GET", "LIST"), times_per_key=1))
    everything(faulty)
    assert len(proxy.faults()) >= 3


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.TRICKLE])
def test_silence_and_trickles_end(fault: Fault, proxy: S3Proxy, faulty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "TIMEOUT_S", 0.3)
    proxy.obey(Rule(fault, ("GET",), times=2))
    began_s = time.monotonic()
    assert faulty.read("one") == PAYLOAD
    assert 0.6 <= time.monotonic() - began_s < 6.0
    assert len(proxy.faults()) == 2


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NIGHTSCRIBE_S3_TIMEOUT_S"):
        s3.timeout_of(text)
    assert s3.timeout_of("2.5") == 2.5


def test_a_slow_body_that_comes_on_is_no_trickle(
    proxy: S3Proxy, faulty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(s3, "LEAST_BYTES_PER_S", 40)
    faulty.replace("slow", PAYLOAD[:160])
    proxy.obey(Rule(Fault.TRICKLE, ("GET",)))
    assert faulty.read("slow") == PAYLOAD[:160]
    assert len(proxy.faults()) == 1


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.RESET])
def test_a_create_whose_answer_was_lost_is_ours_and_that_of_another_is_not(
    fault: Fault, proxy: S3Proxy, faulty: Store
) -> None:
    proxy.obey(Rule(fault, ("PUT",), times_per_key=1))
    assert faulty.create_exclusive("new", b"ours")
    assert not faulty.create_exclusive("new", b"ours"), "the same bytes, by another call"
    assert not faulty.create_exclusive("one", b"theirs stands")
    assert faulty.read("one") == PAYLOAD
    assert len(proxy.faults()) == 2


def test_prove_survives_lost_answers_and_calls_a_store_that_is_down_unavailable(proxy: S3Proxy, faulty: Store) -> None:
    proxy.obey(Rule(Fault.LOST_ANSWER, ("PUT",), times_per_key=1))
    faulty.prove()
    assert proxy.faults()
    proxy.obey(Rule(Fault.SLOW_DOWN))
    with pytest.raises(StorageUnavailable, match=f"DEST {faulty.uri} does not answer.*503"):
        faulty.prove()


def test_a_refusal_is_said_at_once(proxy: S3Proxy, faulty: Store) -> None:
    proxy.obey(Rule(Fault.REFUSED))
    for call in (lambda: faulty.read("one"), lambda: faulty.create_exclusive("two", b""), lambda: faulty.stat("one")):
        with pytest.raises(AccessDenied, match=f"{faulty.uri}/.*403"):
            call()
    assert len(proxy.seen()) == 3


def audio(proxy: S3Proxy, endpoint: Endpoint) -> AudioFile:
    bucket = f"calls-{uuid.uuid4().hex[:12]}"
    endpoint.client().create_bucket(Bucket=bucket)
    endpoint.client().put_object(Bucket=bucket, Key="a.wav", Body=PAYLOAD)
    (found,) = list_audio(f"s3://{bucket}")
    proxy.forget()
    return found


@pytest.mark.parametrize("fault", [one for one in Fault if one not in (Fault.REFUSED, Fault.STALL, Fault.TRICKLE)])
def test_a_download_is_whole_or_tried_again(
    fault: Fault, proxy: S3Proxy, ceph_endpoint: Endpoint, tmp_path: Path
) -> None:
    file = audio(proxy, ceph_endpoint)
    proxy.obey(Rule(fault, ("GET",), times=2))
    fetched = fetch(file, tmp_path)
    assert fetched.path.read_bytes() == PAYLOAD
    assert fetched.content_sha256 == hashlib.sha256(PAYLOAD).hexdigest()
    proxy.obey(Rule(fault, ("GET",)))
    with pytest.raises(StorageUnavailable, match=r"/a\.wav: the store"):
        fetch(file, tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [PAYLOAD], "what failed is removed"


def test_what_was_overwritten_or_deleted_is_not_tried_again(
    proxy: S3Proxy, ceph_endpoint: Endpoint, tmp_path: Path
) -> None:
    file = audio(proxy, ceph_endpoint)
    place = {"Bucket": s3.split_uri(file.uri)[0], "Key": "a.wav"}
    ceph_endpoint.client().put_object(**place, Body=PAYLOAD[::-1])  # of the same length
    with pytest.raises(SourceChanged):
        fetch(file, tmp_path)
    ceph_endpoint.client().delete_object(**place)
    with pytest.raises(SourceGone):
        fetch(file, tmp_path)
    assert len(proxy.seen()) == 2


def test_a_flood_of_503_is_answered_with_fewer_requests(
    proxy: S3Proxy, faulty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time runs forty times as fast as in a real night: four threads, each with three files, one after the other."""
    monkeypatch.setattr(backoff, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_WAIT_S", 0.5)
    proxy.obey(Rule(Fault.SLOW_DOWN))

    def files() -> None:
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                faulty.read("one")

    threads = [threading.Thread(target=files) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at_s = [seen.at_s for seen in proxy.seen()]
    assert len(at_s) <= 4 * (backoff.ATTEMPTS + 2 * backoff.FEWEST_ATTEMPTS), "later calls are tried less often"
    half = len(at_s) // 2
    later = half / (at_s[-1] - at_s[-1 - half])
    print(f"{later:.1f} requests a second in the second half, {len(at_s) / 12:.1f} a call")
    assert later < 30, "four threads that wait a quarter of a second on average; without memory they make 55"
    proxy.obey()
    began_s = time.monotonic()
    assert faulty.read("one") == PAYLOAD
    assert time.monotonic() - began_s < 5.0


def test_requests_of_one_call_come_further_and_further_apart(
    proxy: S3Proxy, faulty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waits have jitter, so halves are compared, over several calls."""
    monkeypatch.setattr(backoff, "FIRST_WAIT_S", 0.02)
    proxy.obey(Rule(Fault.SLOW_DOWN))
    early_s = late_s = 0.0
    for _ in range(3):
        monkeypatch.setattr(backoff, "_pressure", backoff.Pressure())
        proxy.forget()
        with pytest.raises(StorageUnavailable):
            faulty.read("one")
        at_s = [seen.at_s for seen in proxy.seen()]
        assert len(at_s) == backoff.ATTEMPTS
        early_s, late_s = early_s + at_s[4] - at_s[0], late_s + at_s[7] - at_s[4]
    assert late_s > early_s, "three waits against the four before them"
