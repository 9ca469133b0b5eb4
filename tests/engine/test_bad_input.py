from __future__ import annotations

import io
import os
import re
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest import mock

import av
import numpy as np
import pytest

from stt_engine.audio_reader import AudioReader
from stt_engine.decode import AudioLimits, open_audio
from stt_engine.errors import (
    AccessDenied,
    AudioTooLarge,
    CorruptAudio,
    EmptyFile,
    NightscribeError,
    NoAudioStream,
    NotAudio,
    SourceGone,
    StorageUnavailable,
)
from stt_engine.types import AudioInfo, Samples
from tests.engine.encoding import VARIANTS, Variant, encode, encode_video_only, jpeg, overwritten, tone, wav, wav_of


def decoded(content: bytes | Path, name: str, limits: AudioLimits | None = None) -> tuple[Samples, AudioInfo]:
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    with open_audio(source, name=name, limits=limits) as audio:
        blocks = list(audio)
        return np.concatenate([np.zeros((1, 0), np.float32), *blocks], axis=1), audio.info


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("empty.wav", b"", EmptyFile),
        ("letter.wav", b"Dear customer, thank you for your call.\n" * 40, NotAudio),
        ("letter.txt", b"Dear customer, thank you for your call.\n" * 40, NotAudio),
        ("letter.mp3", b"Dear customer, thank you for your call.\n" * 40, NotAudio),
        ("zeros.wav", bytes(5_000), NotAudio),
        ("photo.mp3", jpeg(), NotAudio),
        ("photo.jpg", jpeg(), NotAudio),
        ("noise.bin", np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes(), NotAudio),
        ("header.flac", b"fLaC" + bytes(100), CorruptAudio),
        ("head.wav", wav(b"", claim=960_000), CorruptAudio),
        ("slow.wav", wav(bytes(1_600), rate_hz=1), CorruptAudio),
    ],
)
def test_what_is_no_recording_says_so_with_its_name(name: str, content: bytes, error: type[NightscribeError]) -> None:
    with pytest.raises(error, match=re.escape(name)):
        decoded(content, name)


def test_video_without_sound(tmp_path: Path) -> None:
    with pytest.raises(NoAudioStream, match=r"a\.mp4"):
        decoded(encode_video_only(tmp_path / "a.mp4"), "a.mp4")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceGone, match=r"gone\.wav"):
        decoded(tmp_path / "gone.wav", "gone.wav")
    with pytest.raises(SourceGone, match="directory"):
        decoded(tmp_path, "folder")
    locked = tmp_path / "locked.wav"
    locked.write_bytes(wav(bytes(100)))
    locked.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(AccessDenied, match=r"locked\.wav"):
            decoded(locked, "locked.wav")
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(PermissionError("no"), AccessDenied), (OSError("disk"), StorageUnavailable), (SourceGone("x"), SourceGone)],
)
def test_a_source_that_fails_midway_is_no_damaged_file(raised: Exception, expected: type[NightscribeError]) -> None:
    class Failing(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            if self.tell() > 200_000:
                raise raised
            return super().read(n)

    with pytest.raises(expected), open_audio(Failing(wav(bytes(2_000_000))), name="a.wav") as audio:
        list(audio)


def test_limits_hold_while_streaming() -> None:
    minute = wav(bytes(60 * 32_000))
    with pytest.raises(AudioTooLarge, match="longer than 30 s"):
        decoded(minute, "a.wav", AudioLimits(max_duration_s=30))
    with pytest.raises(AudioTooLarge, match="bytes"):
        decoded(minute, "a.wav", AudioLimits(max_bytes=1_000_000))
    with pytest.raises(AudioTooLarge, match="65 channels"):
        decoded(wav_of(np.zeros((65, 100), np.float32)), "a.wav")
    with pytest.raises(AudioTooLarge, match="500000 Hz"):
        decoded(wav(bytes(1_000), rate_hz=500_000), "a.wav")
    assert decoded(minute, "a.wav", AudioLimits(max_duration_s=60))[1].duration_s == 60.0


def missing_s(info: AudioInfo) -> float:
    (warning,) = [w for w in info.warnings if "missing" in w]
    found = re.match(r"([\d.]+) s", warning)
    assert found, warning
    return float(found[1])


def test_a_header_that_lies_about_3_gb_costs_no_memory() -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, info = decoded(wav(bytes(32_000), claim=3_000_000_000), "a.wav")
    assert info.duration_s == 1.0
    assert missing_s(info) == pytest.approx(3_000_000_000 / 32_000 - 1, rel=0.001)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000


@pytest.mark.parametrize("claim", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF - 36])
def test_placeholders_of_streaming_recorders_are_no_promise(claim: int) -> None:
    _, info = decoded(wav(bytes(32_000), claim=claim), "a.wav")
    assert (info.duration_s, info.warnings) == (1.0, ())


FASTSTART = Variant("m4a", "ipod", "aac", 44_100, "stereo", {"movflags": "faststart"})
CUT_SHORT = {
    "wav": VARIANTS["wav-pcm16"],
    "wav-mulaw": VARIANTS["wav-mulaw"],
    "wav-adpcm": VARIANTS["wav-adpcm"],
    "flac": VARIANTS["flac"],
    "mp3": VARIANTS["mp3"],
    "mp3-8khz": VARIANTS["mp3-8khz"],
    "m4a": FASTSTART,
    "webm": VARIANTS["webm"],
}


@pytest.mark.parametrize("variant", CUT_SHORT.values(), ids=CUT_SHORT)
def test_a_third_of_a_file_lands_and_names_what_is_missing(variant: Variant, tmp_path: Path) -> None:
    path = encode(tmp_path / f"a.{variant.suffix}", variant, steady(30.0, variant.rate_hz))
    content = path.read_bytes()
    samples, info = decoded(content[: len(content) // 3], path.name)
    really_missing_s = 30.0 - samples.shape[1] / 16_000
    assert 17.0 < really_missing_s < 22.0
    assert missing_s(info) == pytest.approx(really_missing_s, rel=0.1)
    assert info.declared_duration_s == pytest.approx(30.0, abs=0.2)


@pytest.mark.parametrize("name", ["ogg-vorbis", "opus"])
def test_a_third_of_an_ogg_says_that_it_was_cut_short(name: str, tmp_path: Path) -> None:
    # An Ogg stream has no length at its front: how much is missing, nobody can know.
    variant = VARIANTS[name]
    content = encode(tmp_path / "a.ogg", variant, steady(30.0, variant.rate_hz)).read_bytes()
    samples, info = decoded(content[: len(content) // 3], "a.ogg")
    assert 8.0 < samples.shape[1] / 16_000 < 12.0
    assert any("cut short" in warning for warning in info.warnings)


def test_an_m4a_without_its_index_is_corrupt(tmp_path: Path) -> None:
    content = encode(tmp_path / "a.m4a", VARIANTS["m4a"], duration_s=5.0).read_bytes()
    with pytest.raises(CorruptAudio, match=r"a\.m4a"):
        decoded(content[: len(content) // 3], "a.m4a")


DAMAGED = {
    "mp3": VARIANTS["mp3"],
    "mp3-no-xing": Variant("mp3", "mp3", "libmp3lame", 16_000, "mono", {"write_xing": "0"}),
    "flac": VARIANTS["flac"],
    "ogg-vorbis": VARIANTS["ogg-vorbis"],
    "opus": VARIANTS["opus"],
    "webm": VARIANTS["webm"],
    "m4a": FASTSTART,
    "aac": VARIANTS["aac"],
}


@pytest.mark.parametrize("variant", DAMAGED.values(), ids=DAMAGED)
def test_damage_in_the_middle_is_named_and_what_follows_keeps_its_time(variant: Variant, tmp_path: Path) -> None:
    sound = steady(30.0, variant.rate_hz)
    sound[27 * variant.rate_hz :] = 0.0  # a mark near the end
    content = encode(tmp_path / f"a.{variant.suffix}", variant, sound).read_bytes()
    samples, info = decoded(overwritten(content, 0.3, 0.6), f"a.{variant.suffix}")
    assert 3.0 < missing_s(info) < 16.0
    if variant.container == "adts":
        return  # FFmpeg drops bytes of a bare AAC stream without saying where
    heard = np.flatnonzero(np.abs(samples[0]) > 0.05)
    assert heard[-1] / 16_000 == pytest.approx(27.0, abs=0.7)


def steady(duration_s: float, rate_hz: int) -> Samples:
    """Loud all through, and rough enough that encoders spend bytes evenly."""
    noise = np.random.default_rng(1).normal(0, 0.05, round(duration_s * rate_hz))
    swell = np.abs(tone(duration_s, rate_hz, pitch_hz=300)).max()
    wave = swell * np.sin(2 * np.pi * 300 * np.arange(len(noise)) / rate_hz)
    return np.asarray(wave + noise, dtype=np.float32).clip(-0.9, 0.9)


@pytest.mark.parametrize(
    "raised",
    [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), AttributeError("x"), MemoryError(), IndexError("tuple")],
)
@pytest.mark.parametrize("place", ["open", "decode"])
def test_odd_exceptions_of_pyav_become_ours(raised: Exception, place: str) -> None:
    target = (av, "open") if place == "open" else (av.container.InputContainer, "demux")
    if place == "open":
        with mock.patch.object(*target, side_effect=raised), pytest.raises((CorruptAudio, NotAudio), match=r"a\.wav"):
            decoded(wav(bytes(1_000)), "a.wav")
        return

    class Refusing:
        def decode(self, packet: object) -> list[av.AudioFrame]:
            raise raised

        channels, sample_rate = 1, 16_000

    with (
        mock.patch("stt_engine.decode.decoder_for", return_value=Refusing()),
        pytest.raises(CorruptAudio, match=r"a\.wav"),
    ):
        decoded(wav(bytes(1_000)), "a.wav")


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/a.ts", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("name", ["list.m3u8", "list.wav", "list.mp3"])
def test_a_playlist_reads_no_other_file_and_no_address(name: str, tmp_path: Path) -> None:
    secret = encode(tmp_path / "secret.mp3", VARIANTS["mp3"])
    with listening() as (address, asked):
        for target in (f"file://{secret}", str(secret), address):
            head = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"
            with pytest.raises((NotAudio, CorruptAudio, NoAudioStream)):
                decoded(f"{head}{target}\n#EXT-X-ENDLIST\n".encode(), name)
            with pytest.raises((NotAudio, CorruptAudio, NoAudioStream)):
                decoded(f"ffconcat version 1.0\nfile {target}\n".encode(), name)
    assert asked == []


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("offset_bytes", [-1, -(2**62), 101, 2**62])
def test_a_place_that_no_file_has_is_no_fault_of_the_source(offset_bytes: int, in_memory: bool, tmp_path: Path) -> None:
    """Damaged containers point there, and some file systems answer with an error."""
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(100))
    reader = AudioReader(io.BytesIO(bytes(100)) if in_memory else path, name="a.wav")
    found = reader.seek(offset_bytes)
    assert found == (offset_bytes if offset_bytes >= 0 else -22)
    assert reader.read(10) == (b"" if offset_bytes >= 0 else bytes(10)), "a place that is refused is not gone to"
    assert reader.seek(-4, os.SEEK_END) == 96 and reader.read() == bytes(4)
    assert reader.failure is None
    reader.close()
