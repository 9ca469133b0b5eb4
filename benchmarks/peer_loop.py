"""One peer over a list of files, as its documentation says to use it: `python peer_loop.py PEER MODEL < files.json`.

Loads the model, says `loaded`, waits for a line on stdin, transcribes, and prints what it came to as JSON. Greedy, the
language given, segment time stamps: as Nightscribe runs beside it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Transcribe = Callable[[str, str], str]
"""Path and language to text."""


def faster_whisper(model: Path, threads: int) -> Transcribe:
    from faster_whisper import WhisperModel

    loaded = WhisperModel(str(model / "ct2"), device="cpu", compute_type="float32", cpu_threads=threads)

    def transcribe(path: str, language: str) -> str:
        segments, _ = loaded.transcribe(
            path, language=language, beam_size=1, vad_filter=True, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def faster_whisper_batched(model: Path, threads: int) -> Transcribe:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    loaded = WhisperModel(str(model / "ct2"), device="cpu", compute_type="float32", cpu_threads=threads)
    batched = BatchedInferencePipeline(loaded)

    def transcribe(path: str, language: str) -> str:
        segments, _ = batched.transcribe(path, language=language, beam_size=1, batch_size=16, without_timestamps=False)
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def transformers(model: Path, threads: int) -> Transcribe:
    import torch
    from faster_whisper.audio import decode_audio
    from transformers import pipeline

    torch.set_num_threads(threads)
    loaded: Any = pipeline("automatic-speech-recognition", model=str(model), device="cpu", dtype=torch.float32)

    def transcribe(path: str, language: str) -> str:
        samples = decode_audio(path)  # the pipeline's own reader wants an ffmpeg binary
        said = loaded(
            {"raw": samples, "sampling_rate": 16_000},
            chunk_length_s=30,
            batch_size=16,
            return_timestamps=True,
            generate_kwargs={"language": language, "task": "transcribe", "num_beams": 1},
        )
        return " ".join(chunk["text"].strip() for chunk in said["chunks"])

    return transcribe


def openai_whisper(model: Path, threads: int) -> Transcribe:
    import torch
    from faster_whisper.audio import decode_audio

    from stt_engine.backends.openai_weights import read_weights
    from stt_engine.backends.openai_whisper import build
    from stt_engine.models import check_serves

    torch.set_num_threads(threads)
    loaded = build(read_weights(check_serves(model, "openai-whisper")), str(model))

    def transcribe(path: str, language: str) -> str:
        found = loaded.transcribe(
            decode_audio(path), language=language, fp16=False, condition_on_previous_text=False, verbose=None
        )
        return str(found["text"]).strip()

    return transcribe


def whisper_cpp(model: Path, threads: int) -> Transcribe:
    """`model` is a file of whisper.cpp's own format."""
    from faster_whisper.audio import decode_audio
    from pywhispercpp.model import Model

    loaded = Model(str(model), n_threads=threads, print_progress=False, redirect_whispercpp_logs_to=None)

    def transcribe(path: str, language: str) -> str:
        samples = decode_audio(path)  # the binding's own reader wants WAV, or an ffmpeg binary
        return " ".join(s.text.strip() for s in loaded.transcribe(samples, language=language, no_context=True))

    return transcribe


def whisperx(model: Path, threads: int) -> Transcribe:
    import whisperx as package
    from faster_whisper.audio import decode_audio

    loaded = package.load_model(str(model / "ct2"), "cpu", compute_type="float32", threads=threads,
                                asr_options={"beam_size": 1}, language="en")  # fmt: skip

    def transcribe(path: str, language: str) -> str:
        said = loaded.transcribe(decode_audio(path), language=language, task="transcribe", batch_size=16)
        return " ".join(segment["text"].strip() for segment in said["segments"])

    return transcribe


PEERS: Mapping[str, Callable[[Path, int], Transcribe]] = {
    "faster-whisper": faster_whisper,
    "faster-whisper-batched": faster_whisper_batched,
    "transformers": transformers,
    "openai-whisper": openai_whisper,
    "whisper.cpp": whisper_cpp,
    "whisperx": whisperx,
}


def main() -> None:
    peer, model, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    began_s = time.perf_counter()
    transcribe = PEERS[peer](model, threads)
    load_s = time.perf_counter() - began_s
    files = json.loads(sys.stdin.readline())
    print("loaded", flush=True)
    sys.stdin.readline()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    first_s = None
    texts = []
    for path, language in files:
        texts.append(transcribe(path, language))
        first_s = first_s or time.perf_counter() - began_s
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "first_s": first_s, "load_s": load_s, "texts": texts}))


if __name__ == "__main__":
    main()
