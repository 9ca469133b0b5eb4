"""One device batch: its windows decoded until they are believed, their tokens made segments, their words timed.

decode ─ believed? ── no: next temperature of those given, for the doubtful windows only
            │ yes, or none is left
         segments ─ time the words
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from stt_engine.backends.base import Backend
from stt_engine.invented_phrases import is_invented_phrase
from stt_engine.language import LanguageGuess
from stt_engine.quality import compression_ratio, hears_no_speech, is_silence, is_unsure, repeats_itself
from stt_engine.second_looks import Window
from stt_engine.stage_times import StageTimes
from stt_engine.timestamps import TimedTokens, timed_tokens
from stt_engine.types import Segment, TranscribeOptions, Word, seconds_from_samples
from stt_engine.windows import Encoded, WindowRequest, WindowTokens
from stt_engine.words import fit_to_segment


@dataclass(frozen=True, slots=True)
class Heard:
    """What one window came to, and whether it is believed."""

    output: WindowTokens
    text: str
    temperature: float
    silent: bool
    flags: tuple[str, ...]
    decodes: int


HeardWindow = tuple[Window, Heard, list[Segment]]
"""A window, what it came to, and its segments in the WINDOW's time."""


class Hearing:
    """What a backend and the options make of encoded windows."""

    def __init__(self, backend: Backend, options: TranscribeOptions, times: StageTimes) -> None:
        self.backend, self.options, self._times = backend, options, times
        self._previous_tokens = self._prompt_tokens()

    def hear(
        self,
        batch: Sequence[Window],
        states: Encoded,
        guesses: Sequence[LanguageGuess],
        temperatures: Sequence[float],
        meanwhile: Callable[[], None],
        earlier: Mapping[Window, Heard],
    ) -> list[HeardWindow]:
        """Per window, what it came to.

        `states`: of these windows, in this order; `guesses`: the language of each; `temperatures`: tried in turn while
        a window is not believed; `meanwhile`: called when the first tokens are written and the device is idle;
        `earlier`: what was heard of them before and not believed.
        Raises DeviceOutOfMemory and DeviceFailed.
        """
        requests = [self._request(guess) for guess in guesses]
        tried = [[earlier[window]] if window in earlier else [] for window in batch]
        heard = self._decode_with_fallback(states, requests, temperatures, meanwhile, tried)
        segments = [self._segments(w, h) for w, h in zip(batch, heard, strict=True)]
        if self.options.timestamps == "word":
            segments = self._with_words(states, batch, requests, heard, segments)
        return list(zip(batch, heard, segments, strict=True))

    def _request(self, guess: LanguageGuess) -> WindowRequest:
        return WindowRequest(
            language=guess.language,
            task=self.options.task,
            # Also where none are wanted: without them a dense window skips sentences, and nothing would show it.
            timestamps=True,
            previous_tokens=self._previous_tokens,
        )

    def _prompt_tokens(self) -> tuple[int, ...]:
        encode = self.backend.tokens.encode
        hotwords = encode(" " + self.options.hotwords.strip()) if self.options.hotwords else ()
        prompt = encode(" " + self.options.initial_prompt.strip()) if self.options.initial_prompt else ()
        # Hotwords first and at most half of the room, the prompt nearest to the text: as faster-whisper places them.
        return (*hotwords[:111], *prompt[-(223 - len(hotwords[:111])) :])

    def _decode_with_fallback(
        self,
        states: Encoded,
        requests: Sequence[WindowRequest],
        temperatures: Sequence[float],
        meanwhile: Callable[[], None],
        tried: Sequence[list[Heard]],
    ) -> list[Heard]:
        """Each window at the first temperature at which it is believed, else at the best of those tried."""
        open_places = list(range(len(requests)))
        for temperature in temperatures:
            everything = len(open_places) == len(requests)
            with self._times.during("tokens"):
                outputs = self.backend.decode(
                    states if everything else self.backend.select(states, open_places),
                    [requests[place] for place in open_places],
                    temperature=temperature,
                    beam_size=self.options.beam_size if temperature == 0 else 1,
                )
            if everything:
                meanwhile()
            doubtful: list[int] = []
            for place, output in zip(open_places, outputs, strict=True):
                heard = self._judge(output, temperature)
                tried[place].append(heard)
                if heard.flags:
                    doubtful.append(place)
            open_places = doubtful
            if not open_places:
                break
        return [replace(_best(attempts), decodes=sum(a.decodes for a in attempts)) for attempts in tried]

    def _judge(self, output: WindowTokens, temperature: float) -> Heard:
        text = self.backend.tokens.decode([t for t in output.tokens if t < self.backend.tokens.timestamp_begin])
        # No text is silence only where the model hears no speech either; else it is speech left behind.
        silent = is_silence(
            no_speech_prob=output.no_speech_prob, avg_logprob=output.avg_logprob, options=self.options
        ) or (not text.strip() and hears_no_speech(output.no_speech_prob, self.options))
        flags: list[str] = []
        if not silent:
            flags += ["repetition"] * repeats_itself(text, self.options)
            flags += ["low_confidence"] * is_unsure(output.avg_logprob, self.options)
        return Heard(output, text, temperature, silent, tuple(flags), decodes=1)

    # -- from tokens to segments ---------------------------------------------------------------------------------

    def _segments(self, window: Window, heard: Heard) -> list[Segment]:
        if heard.silent:
            return []
        speech_end_s = seconds_from_samples(window.regions[-1].end_sample) if window.regions else window.duration_s
        segments = []
        ratio = compression_ratio(heard.text)
        for timed, text in self._texts(window, heard):
            start_s, end_s, flags = timed.start_s, timed.end_s, list(heard.flags)
            if not timed.closed:
                end_s = max(start_s, speech_end_s)
                flags.append("open_end")
            if is_invented_phrase(text):
                flags.append("invented_phrase")
            segments.append(
                Segment(
                    text=text,
                    start_s=start_s,
                    end_s=end_s,
                    channel=None,
                    avg_logprob=heard.output.avg_logprob,
                    no_speech_prob=heard.output.no_speech_prob,
                    compression_ratio=ratio,
                    temperature=heard.temperature,
                    flags=tuple(flags),
                    tokens=timed.tokens,
                )
            )
        return segments

    def _texts(self, window: Window, heard: Heard) -> list[tuple[TimedTokens, str]]:
        """What the window says, stretch by stretch, without what the model placed past the end of its audio."""
        tokens = self.backend.tokens
        stretches = timed_tokens(
            heard.output.tokens, timestamp_begin=tokens.timestamp_begin, duration_s=window.duration_s
        )
        texts = [(stretch, tokens.decode(stretch.tokens)) for stretch in stretches]
        return [(stretch, text) for stretch, text in texts if text.strip()]

    def _with_words(
        self,
        states: Encoded,
        batch: Sequence[Window],
        requests: Sequence[WindowRequest],
        heard: Sequence[Heard],
        segments: Sequence[list[Segment]],
    ) -> list[list[Segment]]:
        speaking = [place for place, found in enumerate(segments) if found]
        if not speaking:
            return list(segments)
        eot = self.backend.tokens.eot
        texts = [self._texts(batch[place], heard[place]) for place in speaking]
        with self._times.during("words"):
            words = self.backend.align(
                states if len(speaking) == len(segments) else self.backend.select(states, speaking),
                [requests[place] for place in speaking],
                [[token for stretch, _ in found for token in stretch.tokens if token < eot] for found in texts],
            )
        timed = list(segments)
        for place, found in zip(speaking, words, strict=True):
            timed[place] = share_words(segments[place], found)
        return timed


def share_words(segments: Sequence[Segment], words: Sequence[Word]) -> list[Segment]:
    """Give each word of a window to the segment in whose text its middle character stands, within the segment's times.

    The segment's own stamps stay: cross attention places the first word after a pause too early.
    """
    shared: list[list[Word]] = [[] for _ in segments]
    ends, position = [], 0
    for segment in segments:
        position += len(segment.text)
        ends.append(position)
    place, position = 0, 0
    for word in words:
        middle = position + len(word.text) / 2
        position += len(word.text)
        while place < len(ends) - 1 and middle > ends[place]:
            place += 1
        shared[place].append(word)
    return [
        replace(s, words=fit_to_segment(own, start_s=s.start_s, end_s=s.end_s)) if own else s
        for s, own in zip(segments, shared, strict=True)
    ]


def _best(attempts: Sequence[Heard]) -> Heard:
    """The last attempt if it is believed; else the likeliest of those that do not repeat themselves, if any."""
    if not attempts[-1].flags:
        return attempts[-1]
    candidates = [a for a in attempts if "repetition" not in a.flags] or attempts
    return max(candidates, key=lambda a: a.output.avg_logprob)
