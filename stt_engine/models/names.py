"""The names that models go by, and the repositories of the Hub behind them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.util import find_spec

from stt_engine.models.bundled import FIXTURE


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One Whisper under its usual name."""

    hugging_face_repo: str
    """Serves all backends."""
    ct2_repo: str
    """The same weights converted for CTranslate2 by others; serves faster-whisper."""


_SIZES = ("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en")
_LARGE = ("large-v1", "large-v2", "large-v3")
_DISTILLED = ("small.en", "medium.en", "large-v2", "large-v3")

KNOWN: dict[str, KnownModel] = {
    **{name: KnownModel(f"openai/whisper-{name}", f"Systran/faster-whisper-{name}") for name in _SIZES},
    # The Hub's openai/whisper-large is the first one, and has no number.
    "large-v1": KnownModel("openai/whisper-large", "Systran/faster-whisper-large-v1"),
    **{name: KnownModel(f"openai/whisper-{name}", f"Systran/faster-whisper-{name}") for name in _LARGE[1:]},
    "large-v3-turbo": KnownModel("openai/whisper-large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
    **{
        f"distil-{name}": KnownModel(f"distil-whisper/distil-{name}", f"Systran/faster-distil-whisper-{name}")
        for name in _DISTILLED
    },
    "distil-large-v3.5": KnownModel("distil-whisper/distil-large-v3.5", "distil-whisper/distil-large-v3.5-ct2"),
}
_SHORT = {"large": "large-v3", "turbo": "large-v3-turbo"}


def find_known(name: str) -> KnownModel | None:
    return KNOWN.get(_SHORT.get(name, name))


def can_convert() -> bool:
    """Whether this installation turns Hugging Face format into CTranslate2's: that takes torch and transformers."""
    return find_spec("torch") is not None and find_spec("transformers") is not None


def candidate_repos(name: str) -> tuple[str, ...]:
    """Repositories that would do for a name or an `org/repo`, the best for this installation first."""
    known = find_known(name)
    if known is None:
        return (name,)
    both = (known.hugging_face_repo, known.ct2_repo)
    return both if can_convert() else both[::-1]


def close_names(name: str) -> list[str]:
    """Known names that somebody who typed `name` may have meant, best first."""
    stem = name.lower().rpartition("/")[2].removeprefix("openai_").removeprefix("faster-").removeprefix("whisper-")
    return difflib.get_close_matches(stem, [FIXTURE, *KNOWN, *_SHORT], n=3, cutoff=0.5)
