from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stt_engine.chunking import ChunkOptions
from stt_engine.decode import AudioLimits
from stt_engine.errors import AudioTooLarge, UsageError
from stt_engine.split import SplitOptions, split_audio
from stt_engine.types import ChunkAudio, Samples
from stt_engine.vad import VadOptions
from tests.engine.encoding import wav, wav_of


def sound_of(path: Path) -> Samples:
    sound, rate_hz = soundfile.read(path, dtype="float32")
    assert rate_hz == 16_000
    return np.asarray(sound, dtype=np.float32)


def split_of(content: bytes, options: SplitOptions | None = None) -> list[ChunkAudio]:
    return list(split_audio(io.BytesIO(content), file_id="f", name="a.wav", options=options))


@pytest.mark.parametrize("name", ["en_long0", "en_long2", "ko_long1"])
def test_chunks_carry_the_samples_of_their_place(samples: Path, name: str) -> None:
    path = samples / f"{name}.flac"
    whole = sound_of(path)
    splitter = split_audio(path, file_id="f", name=path.name, options=SplitOptions())
    chunks = list(splitter)

    assert chunks
    for audio in chunks:
        assert audio.chunk.file_id == "f"
        assert audio.chunk.channel is None
        assert np.array_equal(audio.samples, whole[audio.chunk.start_sample : audio.chunk.end_sample])
    assert splitter.info.duration_s == len(whole) / 16_000
    assert splitter.speech_s == pytest.approx(sum(audio.chunk.speech_s for audio in chunks))
    assert 0.4 * splitter.info.duration_s < splitter.speech_s <= splitter.info.duration_s
    assert set(splitter.timings_s) == {"decode", "vad"}
    assert all(spent_s > 0 for spent_s in splitter.timings_s.values())


def test_real_recordings_are_taken_apart_whole(recordings: Path) -> None:
    for path in sorted(recordings.glob("librispeech_0*.flac")):
        splitter = split_audio(path, file_id="f", name=path.name)
        chunks = list(splitter)
        assert splitter.speech_s > 0.5 * splitter.info.duration_s, path.name
        assert all(1 <= audio.chunk.n_samples <= 480_000 for audio in chunks)


def test_channels_apart_are_heard_apart(samples: Path) -> None:
    agent, caller = sound_of(samples / "en_000.flac"), sound_of(samples / "ko_000.flac")
    both = np.zeros((3, len(agent) + len(caller)), np.float32)
    both[0, : len(agent)] = agent
    both[1, len(agent) :] = caller  # the third channel stays silent
    apart = split_of(wav_of(both), SplitOptions(channels="split"))
    assert [(audio.chunk.channel, audio.chunk.index) for audio in apart] == [(0, 0), (1, 0)]
    for audio in apart:
        assert audio.chunk.channel is not None
        start, end = audio.chunk.start_sample, audio.chunk.end_sample
        assert np.array_equal(audio.samples, both[audio.chunk.channel, start:end])
    assert apart[0].chunk.regions[-1].end_sample <= len(agent) + 16_000
    assert apart[1].chunk.regions[0].start_sample >= len(agent) - 3_200
    mixed = split_of(wav_of(both))
    assert {audio.chunk.channel for audio in mixed} == {None}


def test_nothing_said_gives_no_chunk(samples: Path) -> None:
    assert split_of(wav(b"")) == []
    assert split_of(wav(b"\x00\x40")) == []
    for name in ("silence.flac", "noise.flac"):
        splitter = split_audio(samples / name, file_id="f", name=name)
        assert list(splitter) == []
        assert (splitter.speech_s, splitter.info.duration_s) == (0.0, 12.0)


def test_speech_without_a_pause_is_cut_to_chunks(samples: Path) -> None:
    sentence = sound_of(samples / "en_000.flac")
    endless = np.tile(sentence[4_000:-8_000], 60)[None, : 100 * 16_000]
    options = SplitOptions(vad=VadOptions(min_silence_ms=5_000), chunks=ChunkOptions(max_chunk_s=12.0))
    chunks = split_of(wav_of(endless), options)
    assert len(chunks) >= 8
    assert max(audio.chunk.n_samples for audio in chunks) <= 12 * 16_000
    covered = sum(audio.chunk.n_samples for audio in chunks)
    assert covered == pytest.approx(endless.shape[1], abs=16_000)


def test_the_first_chunk_comes_before_the_file_is_read(samples: Path) -> None:
    class Counting(io.BytesIO):
        n_read = 0

        def read(self, n: int | None = -1) -> bytes:
            content = super().read(n)
            self.n_read += len(content)
            return content

    sentence = np.concatenate([sound_of(samples / "en_000.flac"), np.zeros(20 * 16_000, np.float32)])
    source = Counting(wav_of(np.tile(sentence, 20)[None]))
    splitter = split_audio(source, file_id="f", name="a.wav")
    chunks = iter(splitter)
    next(chunks)
    assert source.n_read < len(source.getvalue()) / 4


def test_the_file_is_released_by_whatever_ends_the_reading(tmp_path: Path, samples: Path) -> None:
    def open_files() -> int:
        return len([link for link in Path("/proc/self/fd").iterdir() if "long2" in str(link.resolve())])

    path = samples / "en_long2.flac"
    with split_audio(path, file_id="f", name=path.name):
        assert open_files() == 1
    assert open_files() == 0
    splitter = split_audio(path, file_id="f", name=path.name)
    chunks = iter(splitter)
    next(chunks)
    chunks.close()
    assert open_files() == 0
    splitter = split_audio(
        path, file_id="f", name=path.name, options=SplitOptions(limits=AudioLimits(max_duration_s=9))
    )
    with pytest.raises(AudioTooLarge):
        list(splitter)
    assert open_files() == 0


def test_options_are_refused_before_a_file_is_opened() -> None:
    with pytest.raises(UsageError, match="mix or split"):
        SplitOptions(channels="left")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max_speech_s"):
        SplitOptions(vad=VadOptions(speech_pad_ms=700), chunks=ChunkOptions(max_chunk_s=2.0))


def test_two_hours_need_no_more_memory_than_minutes(samples: Path, tmp_path: Path) -> None:
    # 2 h of two channels would be 900 MB as float32; speech, long silences and a stretch without a pause are all there.
    script = f"""
        import resource, sys, wave
        import numpy as np, soundfile
        from pathlib import Path
        from stt_engine.split import split_audio

        sentence = soundfile.read({str(samples / "en_000.flac")!r}, dtype="int16")[0]
        steady = np.tile(sentence[4000:-8000], 40)
        silence = np.zeros(90 * 16000, np.int16)
        calls = np.concatenate([sentence, silence[:128000]] * 20 + [steady, silence])

        def write(path, duration_s):
            with wave.open(path, "wb") as out:
                out.setnchannels(2); out.setsampwidth(2); out.setframerate(16000)
                left = duration_s * 16000
                while left:
                    piece = calls[:left]
                    out.writeframes(np.stack([piece, piece[::-1]], axis=1).tobytes())
                    left -= len(piece)

        def split(path):
            splitter = split_audio(Path(path), file_id="f", name=path)
            n_chunks = sum(1 for _ in splitter)
            return n_chunks, splitter.info.duration_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        write("short.wav", 600)
        write("long.wav", 7200)
        _, _, before_kb = split("short.wav")
        n_chunks, duration_s, after_kb = split("long.wav")
        print(n_chunks, duration_s, after_kb - before_kb)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=150,
    )
    n_chunks, duration_s, grown_kb = ran.stdout.split()
    assert int(n_chunks) > 200
    assert float(duration_s) == 7200.0
    assert int(grown_kb) < 20_000
