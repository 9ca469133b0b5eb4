"""Dynamic time warping of all windows of a device batch at once: the cheapest path through each one's costs.

As openai/whisper `timing.py:dtw_cpu`, ties included, but an antidiagonal at a time: its cells do not depend on each
other, nor on those of other windows. A window by itself takes some 60 ms of a core, more than a GPU takes to hear it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Path = list[tuple[int, int]]
"""(token, position), ascending in both, from the first corner to the last."""
_BOTH, _DOWN, _RIGHT = 0, 1, 2


def warp(costs: Sequence[Tensor]) -> list[Path]:
    """The cheapest path from the first to the last corner of each of `costs`, one step right, down or both at a time.

    `costs`: float32 `(n, m)` each, on any one device; n and m may differ.
    """
    if not costs:
        return []
    shapes = [tuple(cost.shape) for cost in costs]
    return _walk_back(_origins(_skewed(costs)), shapes)


def _skewed(costs: Sequence[Tensor]) -> Tensor:
    """`(n + m - 1, windows, n)`: cell (i, j) of a window's costs stands at [i + j, window, i]; zeros elsewhere."""
    n, m = (max(cost.shape[axis] for cost in costs) for axis in (0, 1))
    padded = costs[0].new_zeros((len(costs), n, m + n))
    for row, cost in zip(padded, costs, strict=True):
        row[: cost.shape[0], : cost.shape[1]] = cost
    # Read with rows one cell shorter, each row stands one further to the right than the one above it.
    shifted = padded.view(len(costs), -1)[:, : n * (m + n - 1)].view(len(costs), n, m + n - 1)
    return shifted.permute(2, 0, 1).contiguous()


def _origins(skewed: Tensor) -> npt.NDArray[np.uint8]:
    """As `skewed`: from where the cheapest path to a cell comes."""
    n_diagonals, n_windows, n = skewed.shape
    came_from = torch.empty(skewed.shape, dtype=torch.uint8, device=skewed.device)
    before, last, free = (skewed.new_full((n_windows, n + 1), float("inf")) for _ in range(3))
    before[:, 0] = 0.0  # left of and above the first corner
    for diagonal in range(n_diagonals):
        both, down, right = before[:, :-1], last[:, :-1], last[:, 1:]
        is_both = (both < down) & (both < right)
        is_down = (down < both) & (down < right)
        cheapest = torch.where(is_both, both, torch.where(is_down, down, right))
        torch.add(cheapest, skewed[diagonal], out=free[:, 1:])
        torch.sub(_RIGHT, is_both.to(torch.uint8), alpha=_RIGHT - _BOTH, out=came_from[diagonal])
        came_from[diagonal] -= is_down.to(torch.uint8)
        before, last, free = last, free, before
        free[:, 0] = float("inf")
    found: npt.NDArray[np.uint8] = came_from.cpu().numpy()
    return found


def _walk_back(came_from: npt.NDArray[np.uint8], shapes: Sequence[tuple[int, ...]]) -> list[Path]:
    windows = np.arange(len(shapes))
    i = np.array([n - 1 for n, _ in shapes])
    j = np.array([m - 1 for _, m in shapes])
    steps = [(i, j)]
    while (open_windows := (i > 0) | (j > 0)).any():
        came = came_from[i + j, windows, i]
        # Along the first row and column there is one way back.
        came = np.where(i == 0, _RIGHT, np.where(j == 0, _DOWN, came))
        i = i - ((came != _RIGHT) & open_windows)
        j = j - ((came != _DOWN) & open_windows)
        steps.append((i, j))
    rows = np.stack([row for row, _ in steps[::-1]], axis=1).tolist()
    columns = np.stack([column for _, column in steps[::-1]], axis=1).tolist()
    # Those that were home first stood still at their first corner: of those steps, the last is the first of the path.
    paths = [list(zip(row, column, strict=True)) for row, column in zip(rows, columns, strict=True)]
    return [path[path.count((0, 0)) - 1 :] for path in paths]
