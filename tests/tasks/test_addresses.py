"""Which addresses a site reads, what none may hold, and where none leads."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stt_engine.errors import AccessDenied, DestinationRefused, SourceRefused
from tasks import metadata_hosts
from tasks.addresses import check_address, holds_secret
from tasks.fetch import fetch
from tasks.listing import check_source, list_audio
from tasks.metadata_hosts import is_metadata_host
from tasks.spool import check_spool
from tasks.storage import open_store
from tasks.types import AudioFile
from tests.tasks.builders import NOON

SECRETS = [
    "https://kim:pass@host/calls/",
    "https://kim@host/calls/",
    "https://kim:pa%40ss/word@host/calls/",
    "https://host/calls?list=1",
    "https://host?x",
    "http://[::1]:80:pass/calls",
    "s3://AKIAEXAMPLE:abc/def+gh@bucket/calls",
    "s3://AKIAEXAMPLE:123/def@bucket/calls",
    "s3://bucket/calls?X-Amz-Signature=abc",
    "s3://bucket/calls?region=eu&secret_key=abc",
    "abfs://calls/2026?sv=2024&sig=abc%3D",
    "abfs://kim:pass@account/calls",
    "gs://calls/2026?access_token=abc",
    "simplecache::https://kim:pass@host/calls/",
    "zip://*.wav::s3://id:secret@bucket/a.zip",
]
PLAIN = [
    "/calls/a@b?c=d",
    "s3://calls/2026/",
    "s3://calls/who? me@home#1 100%=x",
    "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/calls/2026",
    "abfss://calls@account.dfs.core.windows.net/2026/",
    "https://host:8443/calls/a@b/",
    "https://[fd12:0:0:0:0:0:0:7]:8443/calls/",
    "abfs://calls/2026/what?.wav",
    "zip://*.wav::/calls/a.zip",
]


@pytest.mark.parametrize("uri", SECRETS)
def test_an_address_with_a_secret_is_refused_and_not_repeated(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSCRIBE_ALLOWED_PROTOCOLS", "file,s3,gs,abfs,https")
    assert holds_secret(uri)
    for refuse in (check_source, check_spool, open_store):
        with pytest.raises((SourceRefused, DestinationRefused)) as refused:
            refuse(uri)
        _, _, said = str(refused.value).partition(" ")
        assert said == "holds a user, password or key, which every table and log would show: give it in the environment"


@pytest.mark.parametrize("uri", PLAIN)
def test_what_only_looks_odd_is_an_address(uri: str) -> None:
    assert not holds_secret(uri)


@pytest.mark.parametrize(
    ("uri", "allowed", "passes"),
    [
        ("/calls", None, True),
        ("s3://calls", None, True),
        ("gcs://calls", None, True),
        ("https://host/calls/", None, False),
        ("http://host/calls/", None, False),
        ("HTTP://host/calls/", None, False),
        ("ftp://host/calls/", None, False),
        ("simplecache::http://host/calls/", None, False),
        ("simplecache::zip://*::http://host/a.zip", None, False),
        ("zip://*.wav::simplecache::https://host/a.zip", None, False),
        ("zip://*::http", None, False),
        ("zip://*::data:,x", None, False),
        ("reference://::s3://calls/index.json", None, False),
        ("zip://*.wav::s3://calls/a.zip", None, True),
        ("https://host/calls/", "s3,https", True),
        ("simplecache::http://host/calls/", " HTTPS , s3", True),
        ("/calls", "s3", False),
        ("file:///calls", "s3", False),
        ("local:///calls", "s3", False),
        ("zip://*.wav::/calls/a.zip", "s3", False),
        ("simplecache::file:///calls/", "s3", False),
        ("s3://calls/a::http://b", "s3", True),
    ],
)
def test_only_allowed_protocols_are_read_chained_or_not(
    uri: str, allowed: str | None, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if allowed is not None:
        monkeypatch.setenv("NIGHTSCRIBE_ALLOWED_PROTOCOLS", allowed)
    if passes:
        check_address(uri, "SOURCE")
        return
    with pytest.raises(SourceRefused, match=r"is not allowed here, only .*NIGHTSCRIBE_ALLOWED_PROTOCOLS"):
        check_source(uri)


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        ("169.254.169.254", True),
        ("169.254.170.2", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("100.100.100.200", True),
        ("10.0.0.7", False),
        ("127.0.0.1", False),
        ("fd12::7", False),
        ("metadata.example", False),
    ],
)
def test_addresses_that_hand_out_credentials(host: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSCRIBE_ALLOWED_PROTOCOLS", "https")
    assert is_metadata_host(host) is refused
    if refused and "%" not in host:
        # In full: fsspec takes `::` for a chain.
        literal = f"[{ipaddress.ip_address(host).exploded}]" if ":" in host else host
        for uri in (f"http://{literal}/latest/", f"simplecache::http://{literal}:80/latest/"):
            with pytest.raises(SourceRefused, match="never read"):
                check_source(uri)


@contextmanager
def serving(host: str = "127.0.0.1", to: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """A web server with a file, which it sends or says to lie elsewhere; and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if to else 200)
            if to:
                self.send_header("Location", to)
            self.send_header("Content-Length", "4")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"RIFF")

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((host, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_neither_a_name_nor_a_redirection_leads_to_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 stands for the address of the credentials; 127.0.0.2 is the store that sends there."""
    monkeypatch.setenv("NIGHTSCRIBE_ALLOWED_PROTOCOLS", "https")
    with serving() as (port, asked), serving("127.0.0.2", f"http://127.0.0.1:{port}/a.wav") as (sending_port, _):
        (file,) = list_audio(f"http://127.0.0.1:{port}/a.wav")
        assert fetch(file, tmp_path).path.read_bytes() == b"RIFF"
        asked.clear()
        refused_net = metadata_hosts.ipaddress.ip_network("127.0.0.1/32")
        monkeypatch.setattr(metadata_hosts, "_NETWORKS", (refused_net,))
        with pytest.raises(AccessDenied, match="never read"):
            check_source(f"http://localhost:{port}/a.wav")
        for address in (f"localhost:{port}", f"127.0.0.2:{sending_port}"):
            with pytest.raises(AccessDenied, match="never read"):
                fetch(AudioFile(f"http://{address}/a.wav", "a.wav", None, 4, NOON), tmp_path)
        assert asked == []
