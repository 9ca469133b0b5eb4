"""Chunks of many files in, chunk transcripts out: device batches, and the doubts that decode a window again.

    encode ─ vote on the language ─ hear (`hearing.py`) ─ speech left behind? ── yes: hear the rest by itself
                                       ▲
    window="fit": a short look first ──┘ only what it leaves in doubt

Everything here is the same for every backend. Times are relative to the CHUNK.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stt_engine.backends.base import Backend
from stt_engine.errors import DeviceOutOfMemory, UnsupportedOption
from stt_engine.hearing import Heard, Hearing
from stt_engine.language import LanguageBallot, LanguageGuess, evenly_spread, vote
from stt_engine.lookahead import Lookahead
from stt_engine.second_looks import MORE_TEXT, SAME_WINDOW_SHARE, Window, left_behind, sparse, window_of
from stt_engine.stage_times import StageTimes
from stt_engine.types import ChunkAudio, ChunkTranscript, Seconds, Segment, TranscribeOptions, seconds_from_samples
from stt_engine.windows import Encoded

log = logging.getLogger(__name__)

COVERAGE_ROUNDS = 3
"""A rest may leave a rest; Whisper's own sequential mode would seek as often as it must."""
SHORT_LOOK_LOGPROB = -0.35
"""A short look at a window is believed less readily than a full one, whose mean log probability may be -1."""
LONGEST_SHORT_S: Seconds = 20.0
"""A second look at a longer window, should it be wanted, costs more than the first one saves."""


@dataclass(slots=True)
class _ChunkSoFar:
    segments: list[Segment] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    decodes: int = 0

    def take(self, window: Window, heard: Heard, segments: Sequence[Segment]) -> bool:
        """Add what a window came to; False where it was to better a segment and did not."""
        old = window.instead_of
        if old is not None:
            longer = sum(len(s.text) for s in segments) > MORE_TEXT * len(old.text)
            if heard.flags or not longer:
                return False
            self.segments.remove(old)
        self.flags.update(heard.flags)
        self.segments.extend(s.shifted(seconds_from_samples(window.offset_samples)) for s in segments)
        return True


class ChunkDecoder:
    """Transcribes chunks with one loaded backend under one set of options.

    Raises:
        UnsupportedOption: the backend has not what the options ask for; said at construction.
    """

    def __init__(self, backend: Backend, options: TranscribeOptions, *, device_batch_windows: int = 16) -> None:
        check_options(backend, options)
        self.backend = backend
        self.options = options
        self.device_batch_windows = device_batch_windows
        self.times = StageTimes()
        self._hearing = Hearing(backend, options, self.times)
        self._lookahead = Lookahead(backend, self.times)

    def transcribe(
        self, chunks: Sequence[ChunkAudio], languages: Mapping[str, LanguageGuess] | None = None
    ) -> list[ChunkTranscript]:
        """Transcribe chunks of any number of files, in any mixture of languages.

        Args:
            chunks: samples with their chunks.
            languages: by file_id, where it is known already; the other files vote with the chunks given here.

        Returns:
            One transcript per chunk, in the order given.

        Raises:
            DeviceOutOfMemory: a single window does not fit; larger device batches are halved here.
        """
        known = dict(languages or {})
        if self.options.language is not None:
            known = {c.chunk.file_id: LanguageGuess(self.options.language, 1.0) for c in chunks}
        windows = [window_of(number, audio) for number, audio in enumerate(chunks)]
        n_chunks = Counter(window.file_id for window in windows)
        # A file in one chunk votes when that is heard: no states need to be kept until everybody has voted.
        voting = [w for w in windows if w.file_id not in known and n_chunks[w.file_id] > 1]
        encoded = self._encode_all(voting)
        known |= self._vote(chunks, encoded)
        others = [w for w in windows if w.chunk_number not in encoded]
        so_far = [_ChunkSoFar() for _ in chunks]
        batches: Iterable[Sequence[Window]] = itertools.chain(
            self._device_batches(voting, encoded=True), self._device_batches(others)
        )
        if self.options.window == "fit":
            batches = self._after_a_short_look(batches, known, encoded, so_far)
        for round_number in range(COVERAGE_ROUNDS + 1):
            rests: list[Window] = []
            for batch in batches:
                for window, heard, segments in self._hear(batch, known, encoded):
                    chunk = so_far[window.chunk_number]
                    chunk.decodes += heard.decodes
                    if not chunk.take(window, heard, segments):
                        continue
                    left = [] if heard.silent else left_behind(window, segments, self.options)
                    again = [w for w in left if len(w.samples) <= SAME_WINDOW_SHARE * len(window.samples)]
                    if len(again) < len(left) or (left and round_number == COVERAGE_ROUNDS):
                        chunk.flags.add("uncovered_speech")
                    rests.extend(again)
                    if round_number == 0:
                        rests.extend(sparse(window, segments, self.options))
            if not rests:
                break
            encoded.clear()
            batches = self._device_batches(rests)
        return [
            ChunkTranscript(
                chunk=audio.chunk,
                language=known[audio.chunk.file_id].language,
                language_probability=known[audio.chunk.file_id].probability,
                segments=tuple(sorted(chunk.segments, key=lambda s: (s.start_s, s.end_s))),
                flags=tuple(sorted(chunk.flags)),
                decodes=chunk.decodes,
            )
            for audio, chunk in zip(chunks, so_far, strict=True)
        ]

    def _after_a_short_look(
        self,
        batches: Iterable[Sequence[Window]],
        known: dict[str, LanguageGuess],
        encoded: dict[int, tuple[Encoded, int]],
        so_far: Sequence[_ChunkSoFar],
    ) -> list[Sequence[Window]]:
        """Hear what is short without padding it to 30 s; returns what is to be heard in full: doubtful or not short."""
        doubtful: list[Window] = []
        in_full: list[Sequence[Window]] = []
        for batch in batches:
            if not self._is_short(batch):
                in_full.append(batch)
                continue
            for window, heard, segments in self._hear(batch, known, encoded, fit=True):
                chunk = so_far[window.chunk_number]
                chunk.decodes += heard.decodes
                missing = left_behind(window, segments, self.options) or sparse(window, segments, self.options)
                unsure = heard.output.avg_logprob < SHORT_LOOK_LOGPROB
                if heard.flags or heard.silent or unsure or missing:
                    doubtful.append(window)
                else:
                    chunk.take(window, heard, segments)
        return [*in_full, *self._device_batches(doubtful)]

    def detect_language(self, chunks: Sequence[ChunkAudio]) -> LanguageGuess:
        """The vote of one file's chunks, over at most `VOTE_WINDOWS` of them from all over the file."""
        sample = evenly_spread(chunks)
        encoded = self._encode_all([window_of(number, audio) for number, audio in enumerate(sample)])
        return self._vote(sample, encoded)[sample[0].chunk.file_id]

    # -- language ------------------------------------------------------------------------------------------------

    def _encode_all(self, windows: Sequence[Window]) -> dict[int, tuple[Encoded, int]]:
        """By chunk number: the device batch that holds the window, and its place in it."""
        places: dict[int, tuple[Encoded, int]] = {}
        for batch in self._device_batches(windows):
            for part, encoded in self._encode_halving(batch):
                places |= {window.chunk_number: (encoded, place) for place, window in enumerate(part)}
        return places

    def _encode_halving(self, batch: Sequence[Window]) -> Iterator[tuple[Sequence[Window], Encoded]]:
        for part in self._fitting(batch):
            try:
                encoded = self.times.encode(self.backend, [w.samples for w in part], fit=self._is_short(part))
                reason = ""
            except DeviceOutOfMemory as error:
                encoded, reason = None, str(error)
            # Not in the except block: the exception holds what had been put on the device by then.
            if encoded is None:
                self._halve(part, reason)
                yield from self._encode_halving(part)
            else:
                yield part, encoded

    def _vote(
        self, chunks: Sequence[ChunkAudio], encoded: Mapping[int, tuple[Encoded, int]]
    ) -> dict[str, LanguageGuess]:
        ballots: dict[str, list[LanguageBallot]] = {}
        batches = {id(batch): batch for batch, _ in encoded.values()}
        said = {key: self._languages(batch) for key, batch in batches.items()}
        for number, (batch, place) in encoded.items():
            chunk = chunks[number].chunk
            ballots.setdefault(chunk.file_id, []).append(LanguageBallot(said[id(batch)][place], chunk.speech_s))
        return {file_id: vote(votes) for file_id, votes in ballots.items()}

    def _languages(self, states: Encoded) -> list[Mapping[str, float]]:
        with self.times.during("language"):
            return self.backend.detect_languages(states)

    def _vote_alone(
        self, batch: Sequence[Window], states: Encoded, known: dict[str, LanguageGuess]
    ) -> list[LanguageGuess]:
        """The language of each window; those of which it is not known yet are the only ones of their files."""
        if any(window.file_id not in known for window in batch):
            for window, said in zip(batch, self._languages(states), strict=True):
                known.setdefault(window.file_id, vote([LanguageBallot(said, window.duration_s)]))
        return [known[window.file_id] for window in batch]

    # -- device batches ------------------------------------------------------------------------------------------

    def _device_batches(self, windows: Sequence[Window], *, encoded: bool = False) -> Iterator[Sequence[Window]]:
        # Windows with alike amounts of speech write alike numbers of tokens, so that none waits long for another; where
        # the batch is cut to its longest window, alike lengths come first.
        def size(window: Window) -> float:
            speech_s = sum(region.duration_s for region in window.regions)
            return window.duration_s if self.options.window == "fit" or not speech_s else speech_s

        return self._fitting(
            sorted(windows, key=size, reverse=True), ahead=not encoded and self.options.window == "full"
        )

    def _is_short(self, batch: Sequence[Window]) -> bool:
        """Whether a short look at it is wanted, and would save anything."""
        longest_s = max(window.duration_s for window in batch)
        return self.options.window == "fit" and longest_s <= LONGEST_SHORT_S

    def _fitting(self, windows: Sequence[Window], *, ahead: bool = False) -> Iterator[Sequence[Window]]:
        """Cut as it is asked for, by the size that fits by then; `ahead`: the next one is on its way already."""
        position = 0
        while position < len(windows):
            batch = windows[position : position + self.device_batch_windows]
            position += len(batch)
            if ahead:
                self._lookahead.announce(batch, windows[position : position + self.device_batch_windows])
            yield batch

    def _halve(self, batch: Sequence[Window], reason: str) -> None:
        """After a batch that did not fit: from now on, device batches hold half as many windows."""
        self._lookahead.forget()
        self.backend.give_back()
        if len(batch) == 1:
            raise DeviceOutOfMemory(
                f"one window of {batch[0].duration_s:.0f} s does not fit into the memory of {self.backend.device}: "
                f"choose a smaller model or compute type, or free the device. {reason}"
            )
        self.device_batch_windows = min(self.device_batch_windows, len(batch) // 2)
        log.warning("%s; device batches now hold %d windows", reason, self.device_batch_windows)

    def _hear(
        self,
        batch: Sequence[Window],
        known: dict[str, LanguageGuess],
        encoded: dict[int, tuple[Encoded, int]],
        *,
        fit: bool = False,
    ) -> list[tuple[Window, Heard, list[Segment]]]:
        try:
            return self._hear_at_once(batch, known, encoded, fit=fit)
        except DeviceOutOfMemory as error:
            reason = str(error)
        # Not in the except block: the exception holds the batch that did not fit, on the device.
        self._halve(batch, reason)
        encoded.clear()  # what the vote has left there fills it too
        return [heard for part in self._fitting(batch) for heard in self._hear(part, known, encoded, fit=fit)]

    def _hear_at_once(
        self,
        batch: Sequence[Window],
        known: dict[str, LanguageGuess],
        encoded: dict[int, tuple[Encoded, int]],
        *,
        fit: bool,
    ) -> list[tuple[Window, Heard, list[Segment]]]:
        states = self._states(batch, encoded, fit=fit)
        languages = self._vote_alone(batch, states, known)
        temperatures = self.options.temperatures[:1] if fit else self.options.temperatures
        return self._hearing.hear(batch, states, languages, temperatures, self._lookahead.encode_coming)

    def _states(self, batch: Sequence[Window], encoded: dict[int, tuple[Encoded, int]], *, fit: bool) -> Encoded:
        """From the vote, where it has encoded them; they are not kept there any longer."""
        places = [encoded.pop(w.chunk_number, None) for w in batch]
        holders = {id(place[0]) for place in places if place is not None}
        if None not in places and len(holders) == 1:
            found = [place for place in places if place is not None]
            indices = [place for _, place in found]
            held = found[0][0]
            return held if indices == list(range(held.n_windows)) else self.backend.select(held, indices)
        ahead = None if fit else self._lookahead.take(batch)
        return ahead or self.times.encode(self.backend, [w.samples for w in batch], fit=fit)


def check_options(backend: Backend, options: TranscribeOptions) -> None:
    """Raise UnsupportedOption, naming the option and what to do, where the backend has not what is asked for."""
    if options.hotwords and not backend.supports_hotwords:
        raise UnsupportedOption(f"hotwords: the {backend.name} backend has none; drop them or use faster-whisper")
    if options.beam_size > 1 and not backend.supports_beam:
        raise UnsupportedOption(
            f"beam_size={options.beam_size}: the {backend.name} backend decodes greedily; use 1 or faster-whisper"
        )
    if not backend.tokens.multilingual:
        if options.task == "translate":
            raise UnsupportedOption(f"task=translate: the model {backend.model} knows English only")
        if options.language not in (None, "en"):
            raise UnsupportedOption(f"language={options.language}: the model {backend.model} knows English only")
