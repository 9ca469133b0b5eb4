"""The way of a sample to the model, on one core: decoding, voice activity, mel; ours beside faster-whisper's own.

    python -m benchmarks.feed [--corpora calls,talks,formats] [--rounds 5]

Prints Markdown. One thread each, turns taken stage by stage, CPU seconds of this process (waiting for others does not
count). "Together" is what a file goes through before it is encoded: for faster-whisper decode, speech time stamps,
`collect_chunks` and the feature extractor, as its batched pipeline calls them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from faster_whisper.audio import decode_audio
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.vad import VadOptions as TheirOptions
from faster_whisper.vad import collect_chunks, get_speech_timestamps

from benchmarks.corpora import made
from stt_engine.decode import open_audio
from stt_engine.mel import log_mel
from stt_engine.speech_regions import VadOptions
from stt_engine.split import SplitOptions, split_audio
from stt_engine.types import WINDOW_S, WINDOW_SAMPLES, Region, Samples
from stt_engine.vad import SpeechDetector

EXTRACT = FeatureExtractor()
THEIRS = TheirOptions(max_speech_duration_s=WINDOW_S, min_silence_duration_ms=160)
"""What `BatchedInferencePipeline` sets."""
CLOSE_S = 0.05
BLOCK_SAMPLES = 160_000


def our_regions(samples: Samples, options: VadOptions) -> list[Region]:
    detector = SpeechDetector(options)
    found = [detector.feed(samples[None, at : at + BLOCK_SAMPLES])[0] for at in range(0, len(samples), BLOCK_SAMPLES)]
    return [region for regions in [*found, detector.finish()[0]] for region in regions]


def their_regions(samples: Samples) -> list[Region]:
    return [Region(r["start"], r["end"]) for r in get_speech_timestamps(samples, TheirOptions())]


def our_decode(path: Path) -> Samples:
    return np.concatenate([block[0] for block in open_audio(path, name=path.name)])


def windows_of(samples: Samples) -> list[Samples]:
    return [samples[at : at + WINDOW_SAMPLES] for at in range(0, len(samples), WINDOW_SAMPLES)]


def our_mel(windows: Sequence[Samples]) -> None:
    for window in windows:
        log_mel([window], 80)


def their_mel(windows: Sequence[Samples]) -> None:
    for window in windows:
        EXTRACT(np.pad(window, (0, WINDOW_SAMPLES - len(window))), padding=0)


def our_feed(path: Path) -> None:
    for chunk in split_audio(path, file_id="a", name=path.name, options=SplitOptions()):
        log_mel([chunk.samples], 80)


def their_feed(path: Path) -> None:
    samples = decode_audio(str(path))
    pieces, _ = collect_chunks(samples, get_speech_timestamps(samples, THEIRS), max_duration=WINDOW_S)
    their_mel(pieces)


def ratio(rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, list[float]]:
    """Medians of CPU seconds, and theirs over ours of every round."""
    spent: list[list[float]] = [[], []]
    for _ in range(rounds):
        for work, seconds in zip((ours, theirs), spent, strict=True):
            began_s = time.process_time()
            work()
            seconds.append(time.process_time() - began_s)
    gains = [theirs_s / ours_s for ours_s, theirs_s in zip(*spent, strict=True)]
    return statistics.median(spent[0]), statistics.median(spent[1]), gains


def same_borders(ours: Sequence[Region], theirs: Sequence[Region]) -> tuple[int, int]:
    """How many of their regions have one of ours with both borders within 50 ms; and how many there are."""
    close = CLOSE_S * 16_000
    starts = np.array([[r.start_sample, r.end_sample] for r in ours]).reshape(-1, 2)
    hits = sum(bool((np.abs(starts - (r.start_sample, r.end_sample)) <= close).all(axis=1).any()) for r in theirs)
    return hits, len(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", default="calls,talks,formats")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=40, help="of each corpus, at most; two of talks are 20 min")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nightscribe-corpora")
    wish = parser.parse_args()
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if not one.items() <= os.environ.items():  # read when numpy is imported: begin again with them
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.feed", *sys.argv[1:]], os.environ | one)
    alike = VadOptions(min_speech_ms=TheirOptions().min_speech_duration_ms,
                       min_silence_ms=TheirOptions().min_silence_duration_ms,
                       speech_pad_ms=TheirOptions().speech_pad_ms)  # fmt: skip
    for corpus in wish.corpora.split(","):
        paths = [file.path for file in made(corpus, wish.folder)][: 2 if corpus == "talks" else wish.files]
        heard = [our_decode(path) for path in paths]
        audio_s = sum(len(samples) for samples in heard) / 16_000
        print(f"\n### {corpus}: {len(paths)} files, {audio_s / 60:.1f} min\n")
        print("| stage | ours, CPU s | faster-whisper's, CPU s | times (range) |\n|---|---|---|---|")
        windows = [window for samples in heard for window in windows_of(samples)]
        stages: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "decode": (lambda p=paths: [our_decode(x) for x in p], lambda p=paths: [decode_audio(str(x)) for x in p]),
            "voice activity": (
                lambda h=heard: [our_regions(x, alike) for x in h],
                lambda h=heard: [their_regions(x) for x in h],
            ),
            "mel": (lambda w=windows: our_mel(w), lambda w=windows: their_mel(w)),
            "together": (lambda p=paths: [our_feed(x) for x in p], lambda p=paths: [their_feed(x) for x in p]),
        }
        for name, (ours, theirs) in stages.items():
            own_s, their_s, gains = ratio(wish.rounds, ours, theirs)
            print(f"| {name} | {own_s:.2f} | {their_s:.2f} | {statistics.median(gains):.2f} "
                  f"({min(gains):.2f} to {max(gains):.2f}) |", flush=True)  # fmt: skip
        hits = [same_borders(our_regions(x, alike), their_regions(x)) for x in heard]
        same, of = (sum(column) for column in zip(*hits, strict=True))
        print(
            f"\nRegions with both borders within 50 ms of faster-whisper's, same options: {same} of {of}.", flush=True
        )


if __name__ == "__main__":
    main()
