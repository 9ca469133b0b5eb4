"""How a device batch is shared out among the replicas of a model on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stt_engine.backends.ctranslate2_states import STEP_ROWS, shared_out


def cost(lengths: Sequence[int], places: range) -> int:
    return max(lengths[place] for place in places) * (STEP_ROWS + len(places))


@given(lengths=st.lists(st.integers(1, 480_000), min_size=1, max_size=40), n_shares=st.integers(1, 6))
def test_every_window_is_in_one_share_and_none_waits_longer_than_in_equal_shares(
    lengths: list[int], n_shares: int
) -> None:
    shares = shared_out(lengths, n_shares)
    assert [place for share in shares for place in share] == list(range(len(lengths)))
    assert len(shares) <= n_shares
    bounds = [len(lengths) * share // n_shares for share in range(n_shares + 1)]
    equal = [range(start, end) for start, end in pairwise(bounds) if start < end]
    assert max(cost(lengths, share) for share in shares) <= max(cost(lengths, share) for share in equal)


def test_few_long_windows_weigh_as_much_as_many_short_ones() -> None:
    assert [len(share) for share in shared_out([480_000] * 64, 2)] == [32, 32]
    long, short = shared_out([192_000 - 2_500 * number for number in range(64)], 2)
    assert len(long) < len(short)
