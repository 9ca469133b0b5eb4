"""Whisper's vocabulary: the special tokens, the prompt of a window, and which tokens make a word.

One table serves all backends, so that a prompt, a suppressed token and a word are the same in each. The rules are
those of openai/whisper `tokenizer.py` and `decoding.py`; the ids are read from the vocabulary, never assumed, since
English-only (51,864 tokens), multilingual (51,865) and large-v3 (51,866, one language more) number them differently.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from stt_engine.errors import ModelFormatError, ModelNotFound, UnknownLanguage, UnsupportedOption

if TYPE_CHECKING:
    from stt_engine.windows import WindowRequest

MAX_PREVIOUS_TOKENS = 223
"""Half of the decoder's 448 positions, less one for <|startofprev|>, as in openai/whisper `decoding.py`."""

SECONDS_PER_TIMESTAMP = 0.02
TIMESTAMP_COUNT = 1501
"""<|0.00|> to <|30.00|>."""

UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Written without spaces: every whole unicode character counts as a word."""

_NON_SPEECH_SYMBOLS = tuple('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
# fmt: off
_NON_SPEECH_RUNS = (
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}",
    "♪♪", "♪♪♪",
)
# fmt: on
_MUSIC = frozenset("♩♪♫♬♭♮♯")
_REPLACEMENT = "\ufffd"


class TextCodec(Protocol):
    """Text to ids and back; nothing special about any of them."""

    def encode(self, text: str) -> Sequence[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class _HuggingFaceCodec:
    tokenizer: Any

    def encode(self, text: str) -> Sequence[int]:
        ids: Sequence[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))


@dataclass(frozen=True, slots=True)
class _TiktokenCodec:
    encoding: Any

    def encode(self, text: str) -> Sequence[int]:
        # disallowed_special=(): "<|endoftext|>" in somebody's hotwords is six characters, not an end and not an error.
        ids: Sequence[int] = self.encoding.encode(text, disallowed_special=())
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.encoding.decode(list(ids)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTable:
    """The vocabulary of one model. Ids below `eot` are text, ids from `timestamp_begin` are times in steps of 20 ms."""

    eot: int
    sot: int
    translate: int
    transcribe: int
    start_of_prev: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    language_ids: Mapping[str, int]
    """Code to id, in the vocabulary's order; only "en" where the model is English-only."""
    multilingual: bool
    suppressed: tuple[int, ...]
    """Never written: speaker tags, notes, brackets (openai's `non_speech_tokens`), and the tokens of the prompt."""
    codec: TextCodec = field(repr=False, compare=False)

    def encode(self, text: str) -> tuple[int, ...]:
        """Text tokens alone; what looks like a special token is spelt out or left out. Prompts want a leading space."""
        return tuple(token for token in self.codec.encode(text) if token < self.eot)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids below `eot`, spaces as the model wrote them (usually one in front)."""
        return self.codec.decode([token for token in ids if token < self.eot])

    def is_timestamp(self, token: int) -> bool:
        return token >= self.timestamp_begin

    def prompt(self, request: WindowRequest, max_previous: int = MAX_PREVIOUS_TOKENS) -> tuple[int, ...]:
        """All that the decoder sees before the first token of its own.

        [<|startofprev|> previous...] <|startoftranscript|> [language task] [<|notimestamps|>]; of too many previous
        tokens the last are kept. English-only models have neither language nor task.

        Raises UnknownLanguage, or UnsupportedOption for translate with an English-only model.
        """
        if request.language not in self.language_ids:
            known = ", ".join(self.language_ids)
            raise UnknownLanguage(f"this model does not know the language {request.language!r}; it knows: {known}")
        if request.task == "translate" and not self.multilingual:
            raise UnsupportedOption(
                "an English-only model cannot translate; use a multilingual one, or task transcribe"
            )
        previous = request.previous_tokens[-max_previous:] if max_previous > 0 else ()
        ids: list[int] = [self.start_of_prev, *previous] if previous else []
        ids.append(self.sot)
        if self.multilingual:
            ids.append(self.language_ids[request.language])
            ids.append(self.translate if request.task == "translate" else self.transcribe)
        if not request.timestamps:
            ids.append(self.no_timestamps)
        return tuple(ids)

    def split_to_words(self, ids: Sequence[int], language: str) -> list[tuple[str, tuple[int, ...]]]:
        """Words with their ids, all ids kept, in order; as openai/whisper's `split_to_word_tokens`.

        A word starts at a space, or is one unicode character in languages that write none. Punctuation stands
        alone: who builds words joins it to its neighbours.
        """
        pieces = self._split_on_characters([token for token in ids if token < self.eot])
        if language in UNSPACED_LANGUAGES:
            return pieces
        words: list[tuple[str, tuple[int, ...]]] = []
        for text, tokens in pieces:
            starts_word = text.startswith(" ") or text.strip() in string.punctuation
            if words and not starts_word:
                words[-1] = (words[-1][0] + text, words[-1][1] + tokens)
            else:
                words.append((text, tokens))
        return words

    def _split_on_characters(self, ids: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
        """The shortest runs of ids that decode to whole characters (one may span several byte tokens)."""
        whole = self.codec.decode(ids)
        pieces: list[tuple[str, tuple[int, ...]]] = []
        run: list[int] = []
        offset = 0
        for token in ids:
            run.append(token)
            text = self.codec.decode(run)
            broken_at = text.find(_REPLACEMENT)
            # A replacement character that the whole text has too is the model's own, not half a character.
            if broken_at < 0 or whole[offset + broken_at : offset + broken_at + 1] == _REPLACEMENT:
                pieces.append((text, tuple(run)))
                offset += len(text)
                run = []
        if run:
            pieces.append((self.codec.decode(run), tuple(run)))
        return pieces

    @classmethod
    def from_tokenizer_file(cls, tokenizer_json: Path, multilingual: bool | None = None) -> Self:
        """From a `tokenizer.json` of Hugging Face. `multilingual` None: as its number of text tokens says.

        Raises ModelNotFound when the file is missing, ModelFormatError when it is no tokenizer of Whisper's.
        """
        from tokenizers import Tokenizer

        if not tokenizer_json.is_file():
            raise ModelNotFound(f"{tokenizer_json} is missing: copy it from the model's Hugging Face directory")
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_json))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelFormatError(f"{tokenizer_json} cannot be read as a tokenizer: {error}") from error
        tokenizer.encode_special_tokens = True
        special = {added.content: token for token, added in tokenizer.get_added_tokens_decoder().items()}
        if (eot := tokenizer.token_to_id("<|endoftext|>")) is not None:
            special["<|endoftext|>"] = eot
        return cls._from_special(special, _HuggingFaceCodec(tokenizer), multilingual, str(tokenizer_json))

    @classmethod
    def from_openai_tokenizer(cls, tokenizer: Any, multilingual: bool | None = None) -> Self:
        """From what `whisper.tokenizer.get_tokenizer(...)` returns."""
        codec = _TiktokenCodec(tokenizer.encoding)
        return cls._from_special(dict(tokenizer.special_tokens), codec, multilingual, "openai-whisper's tokenizer")

    @classmethod
    def _from_special(
        cls, special: Mapping[str, int], codec: TextCodec, multilingual: bool | None, source: str
    ) -> Self:
        def named(*names: str) -> int:
            for name in names:
                if name in special:
                    return special[name]
            raise ModelFormatError(f"{source} has no token {names[0]}: it is not a tokenizer of Whisper's")

        eot, sot = named("<|endoftext|>"), named("<|startoftranscript|>")
        translate, transcribe = named("<|translate|>"), named("<|transcribe|>")
        start_of_prev, no_timestamps = named("<|startofprev|>"), named("<|notimestamps|>")
        no_speech = named("<|nospeech|>", "<|nocaptions|>")  # the older spelling is in early conversions
        if multilingual is None:
            multilingual = eot >= 50_257  # GPT-2's 50,256 text tokens are the English-only models'
        languages = sorted(
            (token, name.removeprefix("<|").removesuffix("|>"))
            for name, token in special.items()
            if sot < token < translate
        )
        language_ids = {code: token for token, code in languages if multilingual or code == "en"}
        if "en" not in language_ids:
            raise ModelFormatError(f"{source} names no languages: it is not a tokenizer of Whisper's")
        prompt_tokens = {sot, translate, transcribe, start_of_prev, no_speech, named("<|startoflm|>")}
        return cls(
            eot=eot,
            sot=sot,
            translate=translate,
            transcribe=transcribe,
            start_of_prev=start_of_prev,
            no_speech=no_speech,
            no_timestamps=no_timestamps,
            timestamp_begin=no_timestamps + 1,
            language_ids=language_ids,
            multilingual=multilingual,
            suppressed=tuple(sorted(prompt_tokens | _non_speech_tokens(codec))),
            codec=codec,
        )


def _non_speech_tokens(codec: TextCodec) -> set[int]:
    """Symbols that stand for no sound, as openai/whisper's `non_speech_tokens`.

    Hyphens and apostrophes stay allowed inside words, not in front. The notes of music are three bytes of which
    the first two are shared, so their first token may go as well.
    """
    tokens = {codec.encode(" -")[0], codec.encode(" '")[0]}
    for symbol in (*_NON_SPEECH_SYMBOLS, *_NON_SPEECH_RUNS, *_MUSIC):
        for ids in (codec.encode(symbol), codec.encode(" " + symbol)):
            if len(ids) == 1 or symbol in _MUSIC:
                tokens.add(ids[0])
    return tokens
