"""What is asked of a backend for each window of a device batch, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stt_engine.types import Task


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """How one window of a device batch is to be decoded; windows of one batch may differ in every field."""

    language: str
    task: Task
    timestamps: bool
    previous_tokens: tuple[int, ...] = ()
    """Initial prompt and hotwords, as text tokens; the backend puts <|startofprev|> before them."""


@dataclass(frozen=True, slots=True)
class WindowTokens:
    """What the model wrote for one window."""

    tokens: tuple[int, ...]
    """Text and timestamp tokens, without the prompt and without <|endoftext|>."""
    avg_logprob: float
    """Sum of log probabilities / (len(tokens) + 1), at the model's own (temperature 0) distribution."""
    no_speech_prob: float
    """Probability of <|nospeech|> right after <|startoftranscript|>."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoder states of a device batch, in whatever form the backend keeps them (usually on its device)."""

    states: Any
    n_windows: int
    n_samples: tuple[int, ...]
    """Audio in each window before padding, for word times."""
