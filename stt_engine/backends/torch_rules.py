"""Whisper's rules of what may be written next, for all rows of a device batch at once and without asking the device.

As openai/whisper `decoding.py`: `SuppressBlank`, `SuppressTokens` and `ApplyTimestampRules`, which loop over the rows
and read each back to the host. Here a row's past is held as four small tensors, and each rule is a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stt_engine.tokens import TokenTable

MAX_INITIAL_TIMESTAMP_INDEX = 50
"""1 s in steps of 20 ms: speech is expected to start within the first second, else the model invents a pause."""

_NEVER = float("-inf")


class TokenRules:
    """The rules, and what they need to know of each row's past."""

    def __init__(self, table: TokenTable, timestamps: Sequence[bool], device: torch.device) -> None:
        """`timestamps`: per row, whether it writes time stamps; rows that do not are held to the other rules alone."""
        self._table = table
        self._suppressed = torch.tensor(table.suppressed, device=device)
        self._blank = torch.tensor([*table.encode(" "), table.eot], device=device)
        self._any = any(timestamps)
        self._timestamps = torch.tensor(timestamps, device=device)
        self._first = True
        # Before the first token the pasts of "last" and "one before" count as time stamps, so that after the first
        # time stamp text has to follow: openai's `len(seq) < 2 or ...`.
        self._last_is_timestamp = torch.ones_like(self._timestamps)
        self._one_before_is_timestamp = torch.ones_like(self._timestamps)
        self._last_timestamp = torch.full(self._timestamps.shape, -1, device=device)

    def apply(self, logits: Tensor) -> None:
        """Set to -inf, in place, what may not come next; float32 `(rows, vocabulary)`."""
        table = self._table
        logits.index_fill_(1, self._suppressed, _NEVER)
        if self._first:
            logits.index_fill_(1, self._blank, _NEVER)
        if not self._any:
            return
        on = self._timestamps
        text, special = logits[:, : table.eot], logits[:, table.eot : table.timestamp_begin]
        times = logits[:, table.timestamp_begin :]
        logits[:, table.no_timestamps].masked_fill_(on, _NEVER)
        if self._first:
            text.masked_fill_(on[:, None], _NEVER)
            special.masked_fill_(on[:, None], _NEVER)
            times[:, MAX_INITIAL_TIMESTAMP_INDEX + 1 :].masked_fill_(on[:, None], _NEVER)
            return

        # Time stamps come in pairs, except right before <|endoftext|>.
        text_due = on & self._last_is_timestamp & self._one_before_is_timestamp
        time_due = on & self._last_is_timestamp & ~self._one_before_is_timestamp
        # They never go back, and a segment is never empty: only the opening one may repeat the closing one.
        earliest = self._last_timestamp + torch.where(time_due, 0, 1)
        steps = torch.arange(times.shape[1], device=logits.device)
        banned = (steps < earliest[:, None]) & on[:, None]
        times.masked_fill_(banned | text_due[:, None], _NEVER)

        # Where all time stamps together are likelier than the likeliest other token, it is a time stamp. Both sides
        # are log probabilities less the same constant, so the logits do.
        best_text = text.amax(dim=1).masked_fill(time_due, _NEVER)
        best_other = torch.maximum(best_text, special.amax(dim=1))
        time_wins = on & (times.logsumexp(dim=1) > best_other)
        text.masked_fill_((time_due | time_wins)[:, None], _NEVER)
        special.masked_fill_(time_wins[:, None], _NEVER)

    def update(self, tokens: Tensor) -> None:
        """Take note of the token that each row wrote, `(rows,)`."""
        steps = tokens - self._table.timestamp_begin
        is_timestamp = steps >= 0
        # In place: a step that is replayed finds what the step before it left in the same tensors.
        self._one_before_is_timestamp.copy_(self._last_is_timestamp)
        self._last_is_timestamp.copy_(is_timestamp)
        self._last_timestamp.copy_(torch.where(is_timestamp, steps, self._last_timestamp))
        self._first = False

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        self._timestamps = self._timestamps[rows]
        self._last_is_timestamp = self._last_is_timestamp[rows]
        self._one_before_is_timestamp = self._one_before_is_timestamp[rows]
        self._last_timestamp = self._last_timestamp[rows]
