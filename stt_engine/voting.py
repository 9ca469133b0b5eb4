"""The vote on each file's language, over windows that are encoded for it once and kept for their decoding."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from stt_engine.backends.base import Backend
from stt_engine.device_batches import DeviceBatches
from stt_engine.language import LanguageBallot, LanguageGuess, evenly_spread, vote
from stt_engine.second_looks import Window
from stt_engine.stage_times import StageTimes
from stt_engine.types import ChunkAudio
from stt_engine.windows import Encoded


class Voting:
    def __init__(self, backend: Backend, batches: DeviceBatches, times: StageTimes) -> None:
        self._backend, self._batches, self._times = backend, batches, times

    def encode_all(self, windows: Sequence[Window]) -> dict[int, tuple[Encoded, int]]:
        """By chunk number: the device batch that holds the window, and its place in it."""
        places: dict[int, tuple[Encoded, int]] = {}
        for batch in self._batches.of(windows, ahead=False):
            for part, encoded in self._batches.encode_halving(batch):
                places |= {window.chunk_number: (encoded, place) for place, window in enumerate(part)}
        return places

    def of_files(
        self, chunks: Sequence[ChunkAudio], encoded: Mapping[int, tuple[Encoded, int]]
    ) -> dict[str, LanguageGuess]:
        """Of each file, at most `VOTE_WINDOWS` windows from all over it."""
        of_file: dict[str, list[int]] = {}
        for number in sorted(encoded):
            of_file.setdefault(chunks[number].chunk.file_id, []).append(number)
        voters_in: dict[int, list[int]] = {}
        for number in itertools.chain.from_iterable(map(evenly_spread, of_file.values())):
            voters_in.setdefault(id(encoded[number][0]), []).append(number)
        ballots: dict[str, list[LanguageBallot]] = {}
        for voters in voters_in.values():
            voters.sort(key=lambda number: encoded[number][1])
            batch, places = encoded[voters[0]][0], [encoded[number][1] for number in voters]
            states = batch if len(places) == batch.n_windows else self._backend.select(batch, places)
            for number, said in zip(voters, self._languages(states), strict=True):
                chunk = chunks[number].chunk
                ballots.setdefault(chunk.file_id, []).append(LanguageBallot(said, chunk.speech_s))
        return {file_id: vote(votes) for file_id, votes in ballots.items()}

    def of_windows(
        self, batch: Sequence[Window], states: Encoded, known: dict[str, LanguageGuess]
    ) -> list[LanguageGuess]:
        """The language of each window; those of which it is not known yet are the only ones of their files."""
        if any(window.file_id not in known for window in batch):
            for window, said in zip(batch, self._languages(states), strict=True):
                known.setdefault(window.file_id, vote([LanguageBallot(said, window.duration_s)]))
        return [known[window.file_id] for window in batch]

    def _languages(self, states: Encoded) -> list[Mapping[str, float]]:
        with self._times.during("language"):
            return self._backend.detect_languages(states)
