"""What the engine gets out of one GPU, beside the floor of arithmetic and beside transformers' own pipeline.

    python -m benchmarks.gpu [--sections ceilings,engine,...] [--folder /tmp/gpu] [--windows 768]

Prints Markdown. The model is a random large-v3-turbo in bfloat16 that recites 100 tokens a window
(`benchmarks/random_models.py`). Each section is a process of its own; one that fails says so and the others go on.
Times run from float samples in the host's memory to text.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from benchmarks.random_models import write_model
from stt_engine.decoding import ChunkDecoder
from stt_engine.models import resolve
from stt_engine.types import (
    SAMPLE_RATE_HZ,
    WINDOW_S,
    WINDOW_SAMPLES,
    Chunk,
    ChunkAudio,
    Region,
    Timestamps,
    TranscribeOptions,
)

HERE = Path(__file__).resolve().parent
ENCODER_FLOP = 2.3e12
"""Of large-v3-turbo, a window: 32 layers of 12 · 1280² · 1500 multiply-adds, and attention over 1,500 positions."""
SIZE = "large-v3-turbo"


def turbo(folder: Path) -> Path:
    return write_model(folder / SIZE, SIZE, resolve("fixture"), device="cuda")


def load(folder: Path, compute_type: str = "bfloat16") -> Any:
    from stt_engine.backends.transformers import load as load_transformers

    return load_transformers(str(turbo(folder)), "cuda", compute_type, cpu_threads=4)


def noise(n_windows: int, *, seconds: float = WINDOW_S, files: int | None = None) -> list[ChunkAudio]:
    """Chunks of noise, one a file; speech all along, so that nothing is taken for left behind."""
    chance = np.random.default_rng(0)
    n_samples = min(WINDOW_SAMPLES, int(seconds * SAMPLE_RATE_HZ))
    distinct = [chance.standard_normal(n_samples, dtype=np.float32) * 0.1 for _ in range(min(n_windows, 64))]
    return [
        ChunkAudio(
            Chunk(f"file{number}", None, 0, 0, n_samples, (Region(0, n_samples),)),
            distinct[number % len(distinct)].copy(),
        )
        for number in range(n_windows)
    ]


@contextmanager
def busy_share() -> Iterator[list[int]]:
    """What NVML says of the GPU's use, every 50 ms, in percent."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    seen: list[int] = []
    over = Event()

    def look() -> None:
        while not over.wait(0.05):
            seen.append(int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def timed(work: Callable[[], Any], *, rounds: int = 3) -> tuple[float, Any]:
    """The least of `rounds` wall times in seconds, after one to warm up."""
    import torch

    found = work()
    walls = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        began_s = time.perf_counter()
        found = work()
        torch.cuda.synchronize()
        walls.append(time.perf_counter() - began_s)
    return min(walls), found


def ceilings(folder: Path, n_windows: int) -> None:
    import torch

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    wall_s, _ = timed(lambda: [a @ b for _ in range(20)])
    rate = 20 * 2 * 8192**3 / wall_s
    floor_s = ENCODER_FLOP / rate
    print(f"bf16 product of 8192² matrices: {rate / 1e12:.0f} TFLOP/s; the floor of a window's encoder is therefore "
          f"{1000 * floor_s:.2f} ms, {WINDOW_S / floor_s:,.0f} times real time.\n")  # fmt: skip


def engine(folder: Path, n_windows: int) -> None:
    backend = load(folder)
    chunks = noise(n_windows)
    kept = backend._graphs
    print(f"usual batch: {backend.usual_batch} windows\n")
    print("| batch | graphs | stamps | ms a window | times real time | GPU busy % |\n|---|---|---|---|---|---|")
    cases = [(0, True, "segment"), (0, False, "segment"), (64, True, "segment"), (0, True, "word")]
    for size, graphs, stamps in cases:
        backend._graphs = kept if graphs else None
        options = TranscribeOptions(language="ko", timestamps=stamps)  # type: ignore[arg-type]
        decoder = ChunkDecoder(backend, options, device_batch_windows=size or backend.usual_batch)
        decoder.transcribe(chunks[: min(len(chunks), 2 * decoder.device_batch_windows)])
        with busy_share() as seen:
            began_s = time.perf_counter()
            found = decoder.transcribe(chunks)
            wall_s = time.perf_counter() - began_s
        texts = {" ".join(s.text for s in transcript.segments) for transcript in found}
        decodes = sum(transcript.decodes for transcript in found)
        print(f"| {decoder.device_batch_windows} | {'yes' if graphs else 'no'} | {stamps} "
              f"| {1000 * wall_s / len(chunks):.2f} | {len(chunks) * WINDOW_S / wall_s:,.0f} "
              f"| {np.mean(seen[2:-1] or [0]):.0f} |", flush=True)  # fmt: skip
        if len(texts) != 1 or decodes != len(chunks):
            print(f"\n{len(texts)} different texts, {decodes} decodes for {len(chunks)} windows: not what was asked\n")


def orders(folder: Path, n_windows: int) -> None:
    """Recordings of the tests instead of noise, as a night's order has them: several chunks a file, of any length."""
    import cProfile
    import pstats
    from dataclasses import replace

    from stt_engine.split import SplitOptions, split_audio

    recordings = sorted((HERE.parent / "tests" / "data" / "samples").glob("??_long*.flac"))
    found = [list(split_audio(path, file_id=path.name, name=path.name, options=SplitOptions())) for path in recordings]
    chunks: list[ChunkAudio] = []
    for number in itertools.count():
        if len(chunks) >= n_windows:
            break
        own = found[number % len(found)]
        chunks += [replace(audio, chunk=replace(audio.chunk, file_id=f"file{number}")) for audio in own]
    seconds = sum(len(audio.samples) for audio in chunks) / SAMPLE_RATE_HZ
    backend = load(folder)
    size = backend.usual_batch
    print(f"\n{len(chunks)} chunks of recordings, {seconds / len(chunks):.1f} s each, batches of {size}\n")
    print("| language | stamps | decodes | s | times real time | GPU busy % | seconds |\n" + "|---" * 7 + "|")
    decoder = ChunkDecoder(backend, TranscribeOptions(language="ko"), device_batch_windows=size)
    decoder.transcribe(chunks[:size])
    cases: list[tuple[str | None, Timestamps]] = [("ko", "segment"), (None, "segment"), (None, "word")]
    for language, stamps in cases:
        options = TranscribeOptions(language=language, timestamps=stamps)
        decoder = ChunkDecoder(backend, options, device_batch_windows=size)
        with busy_share() as seen:
            began_s = time.perf_counter()
            transcripts = decoder.transcribe(chunks)
            wall_s = time.perf_counter() - began_s
        spent = ", ".join(f"{name} {used_s:.2f}" for name, used_s in decoder.times.seconds.items())
        print(f"| {language or 'auto'} | {stamps} | {sum(t.decodes for t in transcripts)} | {wall_s:.2f} "
              f"| {seconds / wall_s:,.0f} | {np.mean(seen[2:-1] or [0]):.0f} | {spent} |", flush=True)  # fmt: skip
    watched = cProfile.Profile()
    watched.runcall(decoder.transcribe, chunks)
    pstats.Stats(watched).sort_stats("tottime").print_stats(30)


def stages(folder: Path, n_windows: int) -> None:
    """Each stage by itself, the device waited for between them."""
    import torch

    from stt_engine.mel import FRAMES_PER_WINDOW
    from stt_engine.windows import WindowRequest

    backend = load(folder)
    requests = [WindowRequest("ko", "transcribe", timestamps=True)] * 128
    print("\n| batch of 128 | ms a window |\n|---|---|")
    chunks = [chunk.samples for chunk in noise(128)]
    wall_s, mel = timed(lambda: backend._mel(chunks, FRAMES_PER_WINDOW).to(torch.bfloat16))
    print(f"| samples to the device and mel | {1000 * wall_s / 128:.2f} |", flush=True)
    with torch.inference_mode():
        wall_s, states = timed(lambda: backend._encode(mel))
    print(f"| encoder | {1000 * wall_s / 128:.2f} |", flush=True)
    encoded = backend.encode(chunks)
    kept = backend._graphs
    for graphs in (kept, None):
        backend._graphs = graphs
        wall_s, _ = timed(lambda: backend.decode(encoded, requests))
        print(f"| 100 tokens, {'replayed' if graphs else 'launched'} | {1000 * wall_s / 128:.2f} |", flush=True)
    del states
    profile(lambda: backend.decode(backend.encode(chunks), requests), backend, kept)


def profile(work: Callable[[], Any], backend: Any, graphs: Any) -> None:
    import torch
    from torch.profiler import ProfilerActivity

    backend._graphs = graphs
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        work()
        torch.cuda.synchronize()
    print("\n```\n" + found.key_averages().table(sort_by="self_cuda_time_total", row_limit=14,
          max_name_column_width=60) + "\n```", flush=True)  # fmt: skip


def pipeline(folder: Path, n_windows: int) -> None:
    """transformers' own, batched, bf16, sdpa; its best settings as its documentation has them."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast
    from transformers import pipeline as make_pipeline

    model = WhisperForConditionalGeneration.from_pretrained(turbo(folder), dtype=torch.bfloat16,
                                                            attn_implementation="sdpa").to("cuda")  # fmt: skip
    tokenizer = WhisperTokenizerFast.from_pretrained(turbo(folder))
    extractor = WhisperFeatureExtractor.from_pretrained(turbo(folder))
    chunks = [chunk.samples for chunk in noise(min(n_windows, 256))]
    print("\n| transformers' pipeline, batch | ms a window | times real time |\n|---|---|---|")
    for size in (64, 128):
        asr = make_pipeline("automatic-speech-recognition", model=model, tokenizer=tokenizer,
                            feature_extractor=extractor, device=0, batch_size=size, return_timestamps=True,
                            generate_kwargs={"language": "ko", "task": "transcribe"})  # fmt: skip
        told = [{"raw": samples, "sampling_rate": SAMPLE_RATE_HZ} for samples in chunks]
        asr([dict(t) for t in told[:4]])
        began_s = time.perf_counter()
        found = asr(told)
        wall_s = time.perf_counter() - began_s
        print(f"| {size} | {1000 * wall_s / len(chunks):.2f} | {len(chunks) * WINDOW_S / wall_s:,.0f} |", flush=True)
        print(f"\n({len({f['text'] for f in found})} texts of {len(found[0]['text'].split())} words)\n")


def seed_case(folder: Path, n_windows: int) -> None:
    """100 recordings of 8 s, as SEED.md has them; the model is loaded, the language is not said."""
    backend = load(folder)
    chunks = noise(100, seconds=8.0)
    for language in (None, "ko"):
        decoder = ChunkDecoder(backend, TranscribeOptions(language=language), device_batch_windows=backend.usual_batch)
        wall_s, _ = timed(lambda decoder=decoder: decoder.transcribe(chunks))
        print(f"\n100 recordings of 8 s, language {language or 'auto'}: {wall_s:.2f} s, "
              f"{800 / wall_s:,.0f} times real time", flush=True)  # fmt: skip


def memory(folder: Path, n_windows: int) -> None:
    """A device that is nearly full: batches are sized, and where that was too much halved; every text still comes."""
    import torch

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    backend = load(folder)
    chunks = noise(192)
    options = TranscribeOptions(language="ko")
    decoder = ChunkDecoder(backend, options, device_batch_windows=64)
    (wanted,) = {t.segments[0].text for t in decoder.transcribe(chunks[:64])}
    for left_bytes, size in ((6 * 2**30, 256), (3 * 2**30, 256), (2 * 2**30, 0)):
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        ballast = torch.empty(max(0, free - left_bytes), dtype=torch.uint8, device="cuda")
        usual = backend.usual_batch
        decoder = ChunkDecoder(backend, options, device_batch_windows=size or usual)
        found = decoder.transcribe(chunks)
        said = {t.segments[0].text for t in found}
        print(f"\n{left_bytes / 2**30:.0f} GiB left: usual batch {usual}, asked for {size or usual}, "
              f"came to {decoder.device_batch_windows}; {len(found)} of {len(chunks)} windows, "
              f"texts {'as before' if said == {wanted} else 'CHANGED'}", flush=True)  # fmt: skip
        del ballast


def same_text(folder: Path, n_windows: int) -> None:
    """The bundled model over the tests' recordings: the GPU's texts beside the CPU's."""
    from stt_engine import WhisperSTT

    files = sorted((HERE.parent / "tests" / "data" / "samples").glob("*.flac"))
    files += sorted((HERE.parent / "tests" / "data" / "recordings").glob("*.flac"))
    told: dict[str, list[str]] = {}
    for device, compute_type in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "float16"), ("cuda", "bfloat16")):
        stt = WhisperSTT(model="fixture", device=device, compute_type=compute_type, backends=["transformers"])
        told[f"{device} {compute_type}"] = [stt.transcribe(file).text for file in files]
    first, *others = told
    for other in others:
        pairs = list(zip(told[first], told[other], strict=True))
        alike = [difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in pairs]
        print(f"\n{other} beside {first}: {sum(a == b for a, b in pairs)} of {len(files)} texts the same, "
              f"likeness {np.mean(alike):.4f}, least {min(alike):.3f}", flush=True)  # fmt: skip


def ctranslate2(folder: Path, n_windows: int) -> None:
    """The same model in CTranslate2, through the same decoder of chunks; and faster-whisper's own batched pipeline."""
    import ctranslate2 as ct2

    from stt_engine.backends.faster_whisper import load as load_faster_whisper
    from stt_engine.models.conversion import ct2_dir

    where = ct2_dir(turbo(folder), cache_dir=folder)
    print(f"\nctranslate2 {ct2.__version__}: {ct2.get_cuda_device_count()} devices\n")
    chunks = noise(min(n_windows, 256))
    print("| CTranslate2, batch | ms a window | times real time |\n|---|---|---|")
    for compute_type in ("bfloat16", "float16"):
        backend = load_faster_whisper(str(where), "cuda", compute_type, cpu_threads=4)
        for size in (64, 128):
            decoder = ChunkDecoder(backend, TranscribeOptions(language="ko"), device_batch_windows=size)
            decoder.transcribe(chunks[:size])
            began_s = time.perf_counter()
            decoder.transcribe(chunks)
            wall_s = time.perf_counter() - began_s
            print(f"| {size} {compute_type} | {1000 * wall_s / len(chunks):.2f} "
                  f"| {len(chunks) * WINDOW_S / wall_s:,.0f} |", flush=True)  # fmt: skip


SECTIONS: Mapping[str, Callable[[Path, int], None]] = {
    "ceilings": ceilings, "engine": engine, "orders": orders, "stages": stages, "seed_case": seed_case,
    "pipeline": pipeline, "memory": memory, "same_text": same_text, "ctranslate2": ctranslate2,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--folder", type=Path, default=Path("/tmp/nightscribe-gpu"))
    parser.add_argument("--windows", type=int, default=768)
    parser.add_argument("--within-s", type=float, default=150.0, help="of each section")
    parser.add_argument("--here", action="store_true", help="in this process")
    wish = parser.parse_args(arguments)
    names = wish.sections.split(",")
    if wish.here:
        for name in names:
            SECTIONS[name](wish.folder, wish.windows)
        return
    for name in names:
        began_s = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.gpu", "--here", "--sections", name, "--folder", str(wish.folder),
                   "--windows", str(wish.windows)]  # fmt: skip
        try:
            status = subprocess.run(command, cwd=HERE.parent, timeout=wish.within_s, check=False).returncode
        except subprocess.TimeoutExpired:
            status = -1
        print(f"\n<!-- {name}: {'done' if status == 0 else f'FAILED ({status})'}, "
              f"{time.perf_counter() - began_s:.0f} s -->\n", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
