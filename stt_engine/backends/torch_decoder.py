"""The forward pass of Whisper's text decoder, over the modules of whichever library loaded them.

Both torch libraries hold the same layers under other names, and neither fits a device batch of many files: the one
takes no padded prompts, the other copies its whole cache at every step and the audio's keys for each of five samples.
So the layers are theirs and the loop over them is ours: prompts of different lengths are padded on the left, the
cache of the text is written in place, and the keys and values of the audio are computed once per window and shared by
all samples drawn for it.

Shapes: `windows` audio windows; `rows` = windows x samples per window (window by window); d_model = heads x head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Layer = Callable[[Tensor], Tensor]

ENCODER_POSITIONS = 1500
LOGITS_BYTES = 6 * 51_866 * 4
FEWEST_WINDOWS, MOST_WINDOWS = 8, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLayer:
    """One block; each callable maps `(..., d_model)` to `(..., d_model)`."""

    text_norm: Layer
    text_query: Layer
    text_key: Layer
    text_value: Layer
    text_out: Layer
    audio_norm: Layer
    audio_query: Layer
    audio_key: Layer
    audio_value: Layer
    audio_out: Layer
    mlp_norm: Layer
    mlp: Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderModules:
    """A text decoder, taken apart."""

    embed: Layer
    """Ids to `(..., d_model)`."""
    positions: Tensor
    """`(max_positions, d_model)`."""
    layers: tuple[DecoderLayer, ...]
    norm: Layer
    project: Layer
    """`(..., d_model)` to logits `(..., vocabulary)`."""
    n_heads: int
    alignment_heads: tuple[tuple[int, int], ...]
    """(layer, head) whose attention to the audio follows the speech."""

    @property
    def max_positions(self) -> int:
        return len(self.positions)

    def windows_in(self, free_bytes: int) -> int:
        """How many windows a device batch may hold, `FEWEST_WINDOWS` to `MOST_WINDOWS`.

        What a window takes at its peak, of encoder and decoder together: in the encoder a layer's input, its attention
        and the widened states of its MLP (4 d_model); in the decoder the keys and values of all layers, and the logits
        of the vocabulary some times over. A quarter of the memory is left alone.
        """
        d_model = self.positions.shape[1]
        states_bytes = ENCODER_POSITIONS * d_model * self.positions.element_size()
        window_bytes = states_bytes * (6 + 2 * 4 + 2 * len(self.layers)) + LOGITS_BYTES
        fitting = int(free_bytes * 0.75 / window_bytes)
        return max(FEWEST_WINDOWS, min(MOST_WINDOWS, fitting // 8 * 8))

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 logits."""
        return self.project(hidden).float()


class DecoderState:
    """What the decoder remembers of a device batch: the audio's keys and values, and those of the text so far."""

    def __init__(self, modules: DecoderModules, audio: Tensor) -> None:
        """`audio`: encoder states `(windows, 1500, d_model)`."""
        self._modules = modules
        self._audio = [
            (self._split_heads(layer.audio_key(audio)), self._split_heads(layer.audio_value(audio)))
            for layer in modules.layers
        ]
        self._text: list[tuple[Tensor, Tensor]] = []
        self._length = 0
        self._padding: Tensor | None = None
        self._key_is_text: Tensor | None = None
        self._at: Tensor | None = None
        self._places: Tensor | None = None

    def prefill(self, prompts: Sequence[Sequence[int]], *, pad: int, room: int = 0) -> Tensor:
        """Read one prompt per window; returns hidden states `(windows, longest, d_model)`, short ones on the right.

        `pad` is any id of the vocabulary; `room` is how many tokens will follow.
        """
        device = self._modules.positions.device
        longest = max(len(prompt) for prompt in prompts)
        padding = [longest - len(prompt) for prompt in prompts]
        tokens = torch.tensor([[pad] * n + list(p) for n, p in zip(padding, prompts, strict=True)], device=device)
        positions = torch.arange(longest, device=device)
        mask = None
        if any(padding):
            self._padding = torch.tensor(padding, device=device)
            self._key_is_text = torch.arange(longest + room, device=device) >= self._padding[:, None]
            positions = (positions - self._padding[:, None]).clamp(min=0)
            causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
            itself = torch.eye(longest, dtype=torch.bool, device=device)
            # Padding sees itself: what is nowhere to look has no softmax. Nothing ever looks at padding.
            mask = ((causal & self._key_is_text[:, None, :longest]) | itself)[:, None]
        self._make_room(len(prompts), longest + room)
        return self._forward(tokens, positions, mask, causal=mask is None)

    def hold_still(self) -> None:
        """From now on each step does the same to the same tensors, wherever it is, so that it can be replayed.

        It then attends to all places of the text, those to come masked, instead of those so far.
        """
        room = -(-self._text[0][0].shape[2] // 8) * 8  # as the kernels want their masks
        self._text = [
            (_with_room(keys, self._length, room), _with_room(values, self._length, room))
            for keys, values in self._text
        ]
        if self._key_is_text is not None:
            missing = room - self._key_is_text.shape[1]
            self._key_is_text = torch.nn.functional.pad(self._key_is_text, (0, missing), value=False)
        device = self._modules.positions.device
        self._at = torch.full((1,), self._length, device=device)
        self._places = torch.arange(room, device=device)

    def step(self, tokens: Tensor) -> Tensor:
        """One token per row, `(rows,)`; returns hidden states `(rows, d_model)`."""
        if self._at is not None and self._places is not None:
            return self._still_step(tokens, self._at, self._places)
        positions = torch.full((1,), self._length, device=tokens.device)
        mask = None
        if self._padding is not None and self._key_is_text is not None:
            # Rows that are done may still step beside longer ones: they stay at the last position, and say nothing.
            positions = (positions - self._padding)[:, None].clamp(max=self._modules.max_positions - 1)
            mask = self._key_is_text[:, None, None, : self._length + 1]
        return self._forward(tokens[:, None], positions, mask, causal=False)[:, 0]

    def _still_step(self, tokens: Tensor, at: Tensor, places: Tensor) -> Tensor:
        positions = at
        mask = (places <= at)[None, None, None, :]
        if self._padding is not None and self._key_is_text is not None:
            positions = (at - self._padding)[:, None].clamp(max=self._modules.max_positions - 1)
            mask = mask & self._key_is_text[:, None, None, :]
        hidden = self._forward(tokens[:, None], positions, mask, causal=False, at=at)[:, 0]
        at += 1
        return hidden

    def attend(
        self, tokens: Tensor, heads: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Mapping[tuple[int, int], Tensor]]:
        """Read whole texts `(windows, n)`, padded on the right.

        Returns hidden states `(windows, n, d_model)`, and for each (layer, head) its scores before the softmax,
        float32 `(windows, n, 1500)`. What stands past the end of a text means nothing.
        """
        self._make_room(len(tokens), tokens.shape[1])
        scores: dict[tuple[int, int], Tensor] = {}
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self._forward(tokens, positions, None, causal=True, scores_of=heads, scores=scores)
        return hidden, scores

    def repeat(self, samples: int) -> None:
        """From one row per window to `samples` of them."""
        self._text = [
            (keys.repeat_interleave(samples, dim=0), values.repeat_interleave(samples, dim=0))
            for keys, values in self._text
        ]
        if self._padding is not None and self._key_is_text is not None:
            self._padding = self._padding.repeat_interleave(samples)
            self._key_is_text = self._key_is_text.repeat_interleave(samples, dim=0)

    def keep(self, windows: Tensor, rows: Tensor) -> None:
        """Forget all windows but these, and all rows but these (theirs)."""
        self._audio = [(keys[windows], values[windows]) for keys, values in self._audio]
        self._text = [(keys[rows], values[rows]) for keys, values in self._text]
        if self._padding is not None and self._key_is_text is not None:
            self._padding, self._key_is_text = self._padding[rows], self._key_is_text[rows]

    def _make_room(self, rows: int, length: int) -> None:
        shape = (rows, self._modules.n_heads, length, self._audio[0][0].shape[-1])
        like = self._audio[0][0]
        self._text = [(like.new_empty(shape), like.new_empty(shape)) for _ in self._modules.layers]

    def _forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        *,
        causal: bool,
        at: Tensor | None = None,
        scores_of: Sequence[tuple[int, int]] = (),
        scores: dict[tuple[int, int], Tensor] | None = None,
    ) -> Tensor:
        modules = self._modules
        n_windows = len(self._audio[0][0])
        start, end = self._length, self._length + tokens.shape[1]
        x = modules.embed(tokens) + modules.positions[positions]
        x = x.to(self._audio[0][0].dtype)
        for index, layer in enumerate(modules.layers):
            keys, values = self._text[index]
            normed = layer.text_norm(x)
            query = self._split_heads(layer.text_query(normed))
            new_keys, new_values = (
                self._split_heads(layer.text_key(normed)),
                self._split_heads(layer.text_value(normed)),
            )
            if at is None:
                keys[:, :, start:end] = new_keys
                values[:, :, start:end] = new_values
                keys, values = keys[:, :, :end], values[:, :, :end]
            else:
                keys.index_copy_(2, at, new_keys)
                values.index_copy_(2, at, new_values)
            seen = scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal)
            x = x + layer.text_out(self._join_heads(seen))

            audio_keys, audio_values = self._audio[index]
            # The samples of a window stand side by side as further queries: its audio is held once.
            normed = layer.audio_norm(x).reshape(n_windows, -1, x.shape[-1])
            query = self._split_heads(layer.audio_query(normed))
            if scores is not None:
                for wanted in scores_of:
                    if wanted[0] == index:
                        scores[wanted] = _scores(query[:, wanted[1]], audio_keys[:, wanted[1]])
            seen = scaled_dot_product_attention(query, audio_keys, audio_values)
            x = x + layer.audio_out(self._join_heads(seen)).reshape(x.shape)

            x = x + layer.mlp(layer.mlp_norm(x))
        self._length = end
        return modules.norm(x)

    def _split_heads(self, x: Tensor) -> Tensor:
        """`(n, length, d_model)` to `(n, heads, length, head)`."""
        return x.reshape(*x.shape[:2], self._modules.n_heads, -1).transpose(1, 2)

    @staticmethod
    def _join_heads(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


def _with_room(cache: Tensor, written: int, room: int) -> Tensor:
    """`(rows, heads, room, head)`, zeros from `written` on: what stands there is masked, but 0 times NaN is NaN."""
    rows, heads, _, head = cache.shape
    roomy = cache.new_zeros((rows, heads, room, head))
    roomy[:, :, :written] = cache[:, :, :written]
    return roomy


def _scores(query: Tensor, keys: Tensor) -> Tensor:
    """`(windows, n, head)` and `(windows, 1500, head)` to float32 `(windows, n, 1500)`."""
    # The fourth root on both sides, as openai/whisper `model.py:qkv_attention`, keeps half precision in range.
    scale = float(query.shape[-1]) ** -0.25
    scores: Tensor = (query * scale) @ (keys * scale).transpose(-1, -2)
    return scores.float()
