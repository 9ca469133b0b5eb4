"""Who shares a device batch, and who goes first; the lanes run the fake backend."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stt_engine import WhisperSTT
from stt_engine.errors import DeviceFailed, NightscribeError
from stt_engine.server.lanes import Lane
from stt_engine.server.metrics import Metrics
from stt_engine.server.problems import Abandoned
from stt_engine.server.recording import Recording
from stt_engine.server.scheduler import Scheduler
from stt_engine.server.split_orders import TurnBoard
from stt_engine.server.turns import SharedTurn, Turns
from stt_engine.spool import ChunkSpool
from stt_engine.types import AudioInfo, Chunk, ChunkAudio, TranscribeOptions

RATE_HZ = 16_000
INFO = AudioInfo(duration_s=1.0, channels=1, sample_rate_hz=RATE_HZ, codec="pcm", container="wav")
_numbers = itertools.count()


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(wait_s=0.05)
    yield scheduler
    scheduler.close()


class Sender:
    """Begins recordings whose chunks are a second of a constant."""

    def __init__(self, scheduler: Scheduler, folder: Path) -> None:
        self.scheduler, self.folder = scheduler, folder
        self.spools: dict[str, ChunkSpool] = {}

    def append(self, recording: Recording, audio: ChunkAudio) -> None:
        """As a splitting process would."""
        spool = self.spools.setdefault(recording.request_id, ChunkSpool(recording.spool, shared=True))
        offset_bytes = spool.append(audio)
        spool.flush()
        recording.append(audio.chunk, offset_bytes)

    def begin(self, name: str, options: TranscribeOptions) -> Recording:
        folder = self.folder / f"{name}-{next(_numbers)}"
        folder.mkdir()
        recording = Recording(name, folder, backend="fake", options=options, model="m")
        self.scheduler.begin(recording)
        return recording

    def send(self, name: str, n_chunks: int, *, complete: bool = True, **options: object) -> Recording:
        recording = self.begin(name, replace(TranscribeOptions(language="en"), **options))  # type: ignore[arg-type]
        for index in range(n_chunks):
            chunk = Chunk(name, None, index, index * RATE_HZ, (index + 1) * RATE_HZ)
            self.append(recording, ChunkAudio(chunk, np.full(RATE_HZ, 0.3, dtype=np.float32)))
        if complete:
            self.scheduler.split_ended(recording)
            recording.split_complete(INFO, 1.0)
        return recording


@pytest.fixture
def sender(scheduler: Scheduler, tmp_path: Path) -> Sender:
    return Sender(scheduler, tmp_path)


def names(scheduler: Scheduler, max_windows: int) -> list[str]:
    return [unit.recording.request_id for unit in scheduler.take(max_windows)]


def test_a_clip_does_not_wait_behind_a_long_recording(scheduler: Scheduler, sender: Sender) -> None:
    sender.send("long", 100)
    assert names(scheduler, 4) == ["long"] * 4
    sender.send("clip", 1)
    sender.send("other", 2)
    assert names(scheduler, 4) == ["long", "clip", "other", "long"]
    assert names(scheduler, 4) == ["other", "long", "long", "long"]


def test_one_unit_each_in_turn(scheduler: Scheduler, sender: Sender) -> None:
    sender.send("a", 3)
    sender.send("b", 3)
    assert names(scheduler, 4) == ["a", "b", "a", "b"]
    assert names(scheduler, 4) == ["a", "b"]


def test_other_options_are_another_batch_and_other_languages_are_not(scheduler: Scheduler, sender: Sender) -> None:
    sender.send("a", 1)
    sender.send("ko", 1, language="ko")
    sender.send("words", 1, timestamps="word")
    sender.send("prompted", 1, initial_prompt="calls")
    sender.send("again", 1)
    assert names(scheduler, 16) == ["a", "ko", "again"]
    assert names(scheduler, 16) == ["words"]
    assert names(scheduler, 16) == ["prompted"]


def test_waits_for_company_only_while_somebody_is_coming(scheduler: Scheduler, sender: Sender) -> None:
    sender.send("alone", 1)
    started_s = time.monotonic()
    assert names(scheduler, 16) == ["alone"]
    assert time.monotonic() - started_s < 0.03
    coming = sender.send("coming", 0, complete=False)
    sender.send("waits", 1)
    started_s = time.monotonic()
    assert names(scheduler, 16) == ["waits"]
    assert 0.04 < time.monotonic() - started_s < 0.5
    scheduler.forget(coming)


def test_what_nobody_waits_for_is_not_done(scheduler: Scheduler, sender: Sender) -> None:
    gone = sender.send("gone", 5)
    gone.close()
    scheduler.forget(gone)
    assert scheduler.waiting_chunks == 0
    with pytest.raises(Abandoned):
        gone.read([0])


def lane(scheduler: Scheduler, engine: WhisperSTT, broken: list[NightscribeError] | None = None) -> Lane:
    on_broken = [].append if broken is None else broken.append
    running = Lane(engine, scheduler, Metrics(), number=0, device_batch_windows=8, on_broken=on_broken)
    running.start()
    return running


def finish(recording: Recording) -> None:
    give_up_s = time.monotonic() + 10
    while not recording.finished:
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def test_long_recordings_vote_first_and_come_back_whole(scheduler: Scheduler, sender: Sender) -> None:
    engine = WhisperSTT("fixture", backend="fake")
    voting = sender.send("voting", 30, language=None)
    short = sender.send("short", 2, language=None)
    lane(scheduler, engine)
    finish(voting)
    finish(short)
    assert (voting.transcript().language, short.transcript().language) == ("ko", "ko")
    assert len(voting.transcript().segments) == 30
    assert len(voting.heard_in_order(0)) == 30
    assert len(voting.heard_in_order(28)) == 2


def test_one_recordings_fault_is_not_the_others(
    scheduler: Scheduler, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = WhisperSTT("fixture", backend="fake")
    encode = engine.backend.encode

    def fails_on_loud(windows: list[np.ndarray], **how: bool) -> object:  # type: ignore[type-arg]
        if any(window.max() > 0.5 for window in windows):
            raise RuntimeError("the library stumbles")
        return encode(windows, **how)

    monkeypatch.setattr(engine.backend, "encode", fails_on_loud)
    good = [sender.send(f"good-{n}", 2) for n in range(3)]
    bad = sender.begin("bad", TranscribeOptions(language="en"))
    sender.append(bad, ChunkAudio(Chunk("bad", None, 0, 0, RATE_HZ), np.full(RATE_HZ, 0.9, dtype=np.float32)))
    scheduler.split_ended(bad)
    bad.split_complete(INFO, 1.0)
    running = lane(scheduler, engine)
    for recording in [*good, bad]:
        finish(recording)
    assert [r.error for r in good] == [None] * 3
    assert "RuntimeError" in str(bad.error)
    assert running.is_alive()


def test_a_broken_device_is_reported(scheduler: Scheduler, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = WhisperSTT("fixture", backend="fake")

    def breaks(windows: object, **how: bool) -> object:
        raise DeviceFailed("cuda:0: an illegal memory access")

    monkeypatch.setattr(engine.backend, "encode", breaks)
    broken: list[NightscribeError] = []
    recording = sender.send("a", 1)
    lane(scheduler, engine, broken)
    finish(recording)
    assert isinstance(recording.error, DeviceFailed)
    assert broken == [recording.error]


def test_turns_go_round() -> None:
    """One turn, three threads with ten slices of work: the short one is not the last to end."""
    turns, board = Turns(1), TurnBoard(bytearray(TurnBoard.LAYOUT.size))
    holders: set[int] = set()
    ended: list[str] = []

    def work(name: str, steps: int) -> None:
        number = len(name)
        with SharedTurn(turns, board, number, lambda: False) as turn:
            for _ in range(steps):
                time.sleep(0.02)
                assert board.read()[0] == number
                holders.add(number)
                turn.step()
        ended.append(name)

    threads = [threading.Thread(target=work, args=("long", 40)), threading.Thread(target=work, args=("short", 5))]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert ended == ["short", "long"]
    assert holders == {len("short"), len("long")}
    assert board.read()[0] == 0
    with pytest.raises(Abandoned), SharedTurn(turns, board, 1, lambda: True) as turn:
        turn.step()
    turns.take()  # the turn was given back
