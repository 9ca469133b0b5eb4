from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from stt_engine.decode import AudioLimits, open_audio
from stt_engine.types import AudioInfo, ChannelMode, Samples
from tests.engine.encoding import VARIANTS, Variant, amr_with_pauses, encode, gsm_wav, tone, wav, wav_of


def decoded(source: Path | bytes, *, name: str = "a.wav", channels: ChannelMode = "mix") -> tuple[Samples, AudioInfo]:
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    with open_audio(opened, name=name, channels=channels) as audio:
        blocks = list(audio)
        assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)
        joined = np.concatenate(blocks, axis=1) if blocks else np.zeros((audio.n_streams, 0), np.float32)
        return joined, audio.info


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_each_format_decodes_to_the_sound_that_was_encoded(variant: Variant, tmp_path: Path) -> None:
    path = encode(tmp_path / f"a.{variant.suffix}", variant)
    samples, info = decoded(path, name=path.name)

    assert info.warnings == ()
    assert info.duration_s == pytest.approx(3.0, abs=0.11)  # codecs pad their last frame
    assert info.channels == variant.n_channels or info.codec == "amr_nb"
    assert info.sample_rate_hz == variant.rate_hz
    # the swelling of the tone is where it was, to 20 ms; encoders' delays are far below
    level = np.abs(samples[0][: 3 * 16_000 - 400]).reshape(-1, 400).max(axis=1)
    wanted = np.abs(tone(3.0))[: 3 * 16_000 - 400].reshape(-1, 400).max(axis=1)
    lags = range(-8, 9)
    best = max(lags, key=lambda lag: float(np.corrcoef(np.roll(level, lag)[8:-8], wanted[8:-8])[0, 1]))
    assert abs(best) * 400 / 16_000 <= 0.05
    assert np.corrcoef(np.roll(level, best)[8:-8], wanted[8:-8])[0, 1] > 0.97


def test_sixteen_bit_mono_at_16_khz_is_bit_equal(samples: Path) -> None:
    path = samples / "en_long0.flac"
    wanted, rate_hz = soundfile.read(path, dtype="int16")
    assert rate_hz == 16_000
    ours, info = decoded(path, name=path.name)
    assert np.array_equal(ours[0], wanted.astype(np.float32) / 32_768)
    assert (info.codec, info.container, info.channels) == ("flac", "flac", 1)
    assert info.duration_s == info.declared_duration_s == len(wanted) / 16_000


def test_real_recordings_keep_their_length(recordings: Path) -> None:
    for path in sorted(recordings.glob("*.flac")):
        ours, info = decoded(path, name=path.name)
        assert ours.shape[1] / 16_000 == pytest.approx(soundfile.info(path).duration, abs=0.001), path.name
        assert info.warnings == (), path.name


def test_mixing_is_the_plain_mean_of_all_channels_and_split_keeps_them() -> None:
    rng = np.random.default_rng(0)
    eight = rng.uniform(-0.5, 0.5, (8, 16_000)).astype(np.float32)
    content = wav_of(eight)
    mixed, info = decoded(content)
    apart, _ = decoded(content, channels="split")
    assert info.channels == 8
    np.testing.assert_allclose(mixed, eight.mean(axis=0, keepdims=True), atol=1e-6)
    assert np.array_equal(apart, eight)


def test_resampled_channels_stay_apart() -> None:
    both = np.stack([tone(2.0, 8_000), np.zeros(16_000, np.float32)])
    apart, _ = decoded(wav_of(both, rate_hz=8_000), channels="split")
    assert apart.shape == (2, 32_000)
    assert np.abs(apart[0]).max() > 0.3
    assert np.abs(apart[1]).max() == 0.0


def test_not_a_number_becomes_silence_without_smearing() -> None:
    sound = tone(1.0, 8_000)[None, :].copy()
    sound[0, 4_000:4_010] = np.nan
    sound[0, 100] = np.inf
    ours, info = decoded(wav_of(sound, rate_hz=8_000))
    assert np.isfinite(ours).all()
    assert np.abs(ours).max() <= 1.0
    assert any("11 samples are no numbers" in warning for warning in info.warnings)


def test_loud_floats_are_clipped() -> None:
    ours, _ = decoded(wav_of(np.full((1, 100), 30_000.0, np.float32)))
    assert np.array_equal(ours, np.ones((1, 100), np.float32))


def test_no_sample_and_one_sample_are_no_errors() -> None:
    nothing, info = decoded(wav(b""))
    assert (nothing.shape, info.duration_s, info.warnings) == ((1, 0), 0.0, ())
    one, info = decoded(wav(b"\x00\x40"))
    assert one.tolist() == [[0.5]]
    assert info.duration_s == 1 / 16_000


def test_gsm_wav_decodes() -> None:
    ours, info = decoded(gsm_wav(50))
    assert (info.codec, info.sample_rate_hz, info.warnings) == ("gsm_ms", 8_000, ())
    assert ours.shape == (1, 32_000)


@pytest.mark.skipif("libopencore_amrnb" not in av.codecs_available, reason="this build of PyAV lacks opencore")
def test_amr_pauses_are_silence_not_damage() -> None:
    ours, info = decoded(amr_with_pauses(20), name="a.amr")
    assert info.warnings == ()
    assert info.duration_s == pytest.approx(20 * 0.16, abs=0.03)
    assert np.abs(ours).max() < 0.01


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "libopus")])
def test_video_with_sound(tmp_path: Path, suffix: str, codec: str) -> None:
    container = {"mp4": "mp4", "mkv": "matroska"}[suffix]
    variant = Variant(suffix, container, codec, 48_000, "stereo")
    path = encode(tmp_path / f"a.{suffix}", variant, with_picture=True)
    ours, info = decoded(path, name=path.name)
    assert info.duration_s == pytest.approx(3.0, abs=0.05)
    assert info.warnings == ()
    assert np.abs(ours).max() > 0.3


def test_mp3_with_a_cover_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    cover = tmp_path / "cover.png"
    with av.open(str(cover), "w", format="image2") as container:
        picture = container.add_stream("png", rate=1)
        picture.width, picture.height, picture.pix_fmt = 16, 16, "rgb24"
        container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
    encode(path, VARIANTS["mp3"])
    with_cover = id3_picture(cover.read_bytes()) + path.read_bytes()
    ours, info = decoded(with_cover, name="a.mp3")
    assert info.duration_s == pytest.approx(3.0, abs=0.1)
    assert info.warnings == ()
    assert np.abs(ours).max() > 0.3


def id3_picture(image: bytes) -> bytes:
    body = b"\x00image/png\x00\x03\x00" + image
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\x00\x00" + body
    size = len(frame)
    return b"ID3\x03\x00\x00" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + frame


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.m4a", "aac", "7.1"),
        ("a.opus", "libopus", "7.1"),
        ("b.m4a", "alac", "7.1(wide)"),
        ("c.m4a", "aac", "hexadecagonal"),
        ("a.flac", "flac", "7.1"),
    ],
)
def test_eight_channels_and_more(name: str, codec: str, layout: str, tmp_path: Path) -> None:
    """Each with a loudness of its own; planar ones ended the process while PyAV's `to_ndarray` took them apart."""
    n_channels = av.AudioLayout(layout).nb_channels
    loudness = np.linspace(0.2, 1.0, n_channels, dtype=np.float32)
    interleaved = np.outer(tone(2.0, 48_000), loudness).astype(np.float32).reshape(1, -1)
    with av.open(str(tmp_path / name), "w", format="ogg" if name.endswith("opus") else None) as container:
        stream = container.add_stream(codec, rate=48_000)
        assert isinstance(stream, av.AudioStream)
        stream.layout, stream.bit_rate = layout, 64_000 * n_channels
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_audio(tmp_path / name, name=name, channels="split") as audio:
        samples = np.concatenate(list(audio), axis=1)
    assert (audio.info.channels, len(samples)) == (n_channels, n_channels)
    loud = np.sqrt(np.mean(samples[:, 8_000:24_000] ** 2, axis=1))
    heard = np.delete(loud / loud.max(), 3)  # an effects channel may lose its height
    assert np.sort(heard) == pytest.approx(np.delete(loudness, 3), abs=0.05)


def test_layout_and_rate_that_change_on_the_way(tmp_path: Path) -> None:
    stereo = encode(tmp_path / "a.mp3", Variant("mp3", "mp3", "libmp3lame", 44_100, "stereo", {"write_xing": "0"}))
    mono = encode(tmp_path / "b.mp3", Variant("mp3", "mp3", "libmp3lame", 22_050, "mono", {"write_xing": "0"}))
    content = stereo.read_bytes() + mono.read_bytes()[45:]  # without the second one's ID3 tag
    ours, info = decoded(content, name="a.mp3")
    assert info.duration_s == pytest.approx(6.0, abs=0.2)
    assert any("changes at 3" in warning and "1 channels at 22050 Hz" in warning for warning in info.warnings)
    assert np.abs(ours[0, 4 * 16_000 :]).max() > 0.3
    apart, _ = decoded(content, name="a.mp3", channels="split")
    assert apart.shape[0] == 2
    assert np.abs(apart[1, 4 * 16_000 :]).max() == 0.0


def test_sound_that_starts_later_than_the_picture_keeps_its_time(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        stream = container.add_stream("flac", rate=16_000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        for _ in range(40):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(picture.encode(None))
        loud = (tone(2.0)[None, :] * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(loud, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 2 * 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    ours, info = decoded(path, name=path.name)
    assert info.duration_s == pytest.approx(4.0, abs=0.05)
    assert np.abs(ours[0, :31_000]).max() == 0.0
    assert np.abs(ours[0, 33_000:]).max() > 0.3


def test_a_stream_that_cannot_seek(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    path = encode(tmp_path / "a.mp3", VARIANTS["mp3"])
    with open_audio(Pipe(path.read_bytes()), name="a.mp3") as audio:
        assert sum(block.shape[1] for block in audio) / 16_000 == pytest.approx(3.0, abs=0.11)


def test_blocks_stay_small_and_the_file_is_released() -> None:
    content = io.BytesIO(wav_of(np.zeros((64, 48_000), np.float32), rate_hz=48_000))
    with open_audio(content, name="a.wav", channels="split", limits=AudioLimits(max_channels=64)) as audio:
        assert max(block.nbytes for block in audio) < 4 * 2**20
    assert not content.closed  # the caller's stream stays the caller's
