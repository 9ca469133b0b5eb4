"""Chunks of many files in, chunk transcripts out: device batches, and the doubts that decode a window again.

    encode ─ vote on the language ─ hear (`hearing.py`) ─ believed? ─ yes ─ speech left behind? ── yes: hear the rest by
                                       ▲                     │ no                                   itself
    window="fit": a short look first ──┘ only what it        └ after all others: in halves if it repeats itself, then
                                         leaves in doubt       at the other temperatures

Everything here is the same for every backend. Times are relative to the CHUNK.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from stt_engine.backends.base import Backend
from stt_engine.device_batches import DeviceBatches
from stt_engine.errors import DeviceOutOfMemory, UnsupportedOption
from stt_engine.hearing import Heard, HeardWindow, Hearing
from stt_engine.language import LanguageGuess, evenly_spread
from stt_engine.repeats import halves
from stt_engine.second_looks import MORE_TEXT, SAME_WINDOW_SHARE, Window, left_behind, sparse, window_of
from stt_engine.stage_times import StageTimes
from stt_engine.types import ChunkAudio, ChunkTranscript, Segment, TranscribeOptions, seconds_from_samples
from stt_engine.voting import Voting
from stt_engine.windows import Encoded

COVERAGE_ROUNDS = 3
"""A rest may leave a rest; Whisper's own sequential mode would seek as often as it must."""
SHORT_LOOK_LOGPROB = -0.35
"""A short look at a window is believed less readily than a full one, whose mean log probability may be -1."""


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
        self.times = StageTimes()
        self._hearing = Hearing(backend, options, self.times)
        self._batches = DeviceBatches(backend, options, self.times, device_batch_windows)
        self._voting = Voting(backend, self._batches, self.times)

    @property
    def device_batch_windows(self) -> int:
        """At most so many windows at once; less than was asked for since a batch did not fit."""
        return self._batches.most_windows

    @device_batch_windows.setter
    def device_batch_windows(self, most_windows: int) -> None:
        self._batches.most_windows = most_windows

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
        encoded = self._voting.encode_all(voting)
        known |= self._voting.of_files(chunks, encoded)
        others = [w for w in windows if w.chunk_number not in encoded]
        so_far = [_ChunkSoFar() for _ in chunks]
        batches: Iterable[Sequence[Window]] = itertools.chain(
            self._batches.of(voting, ahead=False), self._batches.of(others)
        )
        if self.options.window == "fit":
            batches = self._after_a_short_look(batches, known, encoded, so_far)
        for round_number in range(COVERAGE_ROUNDS + 1):
            rests: list[Window] = []
            doubted: dict[Window, Heard] = {}
            for window, heard, segments in itertools.chain(
                self._hear_each(batches, known, encoded), self._hear_again(doubted, known)
            ):
                chunk = so_far[window.chunk_number]
                if heard.flags and window not in doubted:
                    cut = halves(window) if round_number == 0 and heard.flags == ("repetition",) else None
                    if cut is not None:
                        chunk.decodes += heard.decodes
                        rests.extend(cut)
                        continue
                    if len(self.options.temperatures) > 1:
                        doubted[window] = heard
                        continue
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
            batches = self._batches.of(rests)
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
            if not self._batches.is_short(batch):
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
        return [*in_full, *self._batches.of(doubtful)]

    def detect_language(self, chunks: Sequence[ChunkAudio]) -> LanguageGuess:
        """The vote of one file's chunks, over at most `VOTE_WINDOWS` of them from all over the file."""
        sample = evenly_spread(chunks)
        encoded = self._voting.encode_all([window_of(number, audio) for number, audio in enumerate(sample)])
        return self._voting.of_files(sample, encoded)[sample[0].chunk.file_id]

    # -- hearing -------------------------------------------------------------------------------------------------

    def _hear_each(
        self,
        batches: Iterable[Sequence[Window]],
        known: dict[str, LanguageGuess],
        encoded: dict[int, tuple[Encoded, int]],
    ) -> Iterator[HeardWindow]:
        for batch in batches:
            yield from self._hear(batch, known, encoded)
        encoded.clear()

    def _hear_again(self, doubted: Mapping[Window, Heard], known: dict[str, LanguageGuess]) -> Iterator[HeardWindow]:
        """At the other temperatures, what is doubted by the time that this is asked: all of it together, since a device
        that is given the few doubtful windows of each batch by themselves is idle but for them."""
        for batch in self._batches.of(list(doubted)):
            yield from self._hear(batch, known, {}, earlier=doubted)

    def _hear(
        self,
        batch: Sequence[Window],
        known: dict[str, LanguageGuess],
        encoded: dict[int, tuple[Encoded, int]],
        *,
        fit: bool = False,
        earlier: Mapping[Window, Heard] = MappingProxyType({}),
    ) -> list[HeardWindow]:
        """At the first temperature; at all the others what was heard `earlier`."""
        try:
            return self._hear_at_once(batch, known, encoded, fit, earlier)
        except DeviceOutOfMemory as error:
            reason = str(error)
        # Not in the except block: the exception holds the batch that did not fit, on the device.
        self._batches.halve(batch, reason)
        encoded.clear()  # what the vote has left there fills it too
        return [
            heard
            for part in self._batches.fitting(batch)
            for heard in self._hear(part, known, encoded, fit=fit, earlier=earlier)
        ]

    def _hear_at_once(
        self,
        batch: Sequence[Window],
        known: dict[str, LanguageGuess],
        encoded: dict[int, tuple[Encoded, int]],
        fit: bool,
        earlier: Mapping[Window, Heard],
    ) -> list[HeardWindow]:
        states = self._states(batch, encoded, fit=fit)
        languages = self._voting.of_windows(batch, states, known)
        temperatures = self.options.temperatures[1:] if earlier else self.options.temperatures[:1]
        encode_coming = self._batches.lookahead.encode_coming
        return self._hearing.hear(batch, states, languages, temperatures, encode_coming, earlier)

    def _states(self, batch: Sequence[Window], encoded: dict[int, tuple[Encoded, int]], *, fit: bool) -> Encoded:
        """From the vote, where it has encoded them; they are not kept there any longer."""
        places = [encoded.pop(w.chunk_number, None) for w in batch]
        holders = {id(place[0]) for place in places if place is not None}
        if None not in places and len(holders) == 1:
            found = [place for place in places if place is not None]
            indices = [place for _, place in found]
            held = found[0][0]
            return held if indices == list(range(held.n_windows)) else self.backend.select(held, indices)
        return self._batches.encode(batch, fit=fit)


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
