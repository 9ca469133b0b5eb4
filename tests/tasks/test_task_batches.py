"""Which chunks share a transcribe task, for any files, any speed and any bounds."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from stt_engine.language import VOTE_WINDOWS
from stt_engine.types import Chunk
from tasks.files_in_hand import file_ids
from tasks.split_groups import FEWEST_GROUPS, LARGEST_GROUP, split_groups
from tasks.task_batches import BatchBounds, TaskBatcher
from tasks.types import AudioFile, SpooledChunk
from tests.tasks.builders import NOON


def chunks_of(name: str, count: int) -> tuple[SpooledChunk, ...]:
    return tuple(
        SpooledChunk(Chunk(name, None, i, i * 100, (i + 1) * 100), f"/spool/{name}", i * 200) for i in range(count)
    )


bounds_of_any_kind = st.builds(
    BatchBounds,
    target_s=st.floats(0.1, 60.0),
    least_windows=st.integers(1, 32),
    most_windows=st.integers(1, 300),
)
files_of_any_kind = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 400)), min_size=1, max_size=30)
window_s = st.lists(st.floats(0.0, 30.0), max_size=5)


@given(sizes=files_of_any_kind, bounds=bounds_of_any_kind, vote=st.booleans(), speeds=window_s)
def test_every_chunk_goes_out_once_and_batches_keep_their_bounds(
    sizes: list[int], bounds: BatchBounds, vote: bool, speeds: list[float]
) -> None:
    batcher = TaskBatcher(bounds, vote=vote)
    files = {f"{number:032x}": chunks_of(f"{number:032x}", count) for number, count in enumerate(sizes)}
    for name, chunks in files.items():
        batcher.add(name, chunks)
    assert batcher.waiting_windows == sum(sizes)

    taken: list[SpooledChunk] = []
    batches_of: defaultdict[str, int] = defaultdict(int)
    known: set[str] = set()
    while batch := batcher.take():
        assert batcher.waiting_windows == sum(sizes) - len(taken) - len(batch)
        whole = max(bounds.most_windows, VOTE_WINDOWS, bounds.least_windows) if vote else bounds.least_windows
        assert len(batch) <= max(batcher.batch_windows, whole)
        assert bounds.least_windows <= batcher.batch_windows <= max(bounds.least_windows, bounds.most_windows)
        taken.extend(batch)
        for name in file_ids(batch):
            batches_of[name] += 1
            # Whoever hears of a file for the first time must hear enough of it to vote.
            heard = [spooled.chunk.index for spooled in batch if spooled.chunk.file_id == name]
            if vote and name not in known:
                count = len(files[name])
                assert len(heard) >= min(count, VOTE_WINDOWS)
                assert len(heard) == count or (min(heard) < count / 8 and max(heard) >= count * 7 / 8)
                known.add(name)
                batcher.language_known(name)
        if speeds:
            batcher.measured(len(batch), speeds.pop() * len(batch))
    assert Counter(taken) == Counter(chunk for chunks in files.values() for chunk in chunks)
    assert batcher.ready_windows == batcher.waiting_windows == 0
    if vote:
        assert all(batches_of[name] == 1 for name, chunks in files.items() if len(chunks) <= bounds.most_windows)


@given(sizes=files_of_any_kind, dropped=st.integers(0, 29), vote=st.booleans())
def test_a_dropped_file_goes_out_no_more(sizes: list[int], dropped: int, vote: bool) -> None:
    batcher = TaskBatcher(BatchBounds(least_windows=4, most_windows=32), vote=vote)
    names = [f"{number:032x}" for number in range(len(sizes))]
    for name, count in zip(names, sizes, strict=True):
        batcher.add(name, chunks_of(name, count))
    gone = names[dropped % len(names)]
    batcher.drop(gone)
    batcher.language_known(gone)
    taken = []
    while batch := batcher.take():
        taken += file_ids(batch)
        for name in file_ids(batch):
            batcher.language_known(name)
    assert set(taken) == set(names) - {gone}
    assert batcher.waiting_windows == 0


def test_a_batch_grows_to_what_the_device_does_in_its_time() -> None:
    batcher = TaskBatcher(BatchBounds(target_s=6.0, least_windows=16, most_windows=256), vote=False)
    assert batcher.batch_windows == 16
    for _ in range(20):
        batcher.measured(16, 16 * 0.05)
    assert batcher.batch_windows == 120
    batcher.measured(16, 16 * 10.0)  # one odd batch
    assert batcher.batch_windows == 16
    for _ in range(40):
        batcher.measured(256, 256 * 0.001)
    assert batcher.batch_windows == 256


def test_a_batch_on_shared_cores_waits_for_as_much_as_is_worth_its_time() -> None:
    bounds = BatchBounds(target_s=6.0, least_windows=16, most_windows=256, patient_windows=64)
    batcher = TaskBatcher(bounds, vote=False)
    assert batcher.worth_sending == 16, "the first goes soon: nothing is measured yet"
    batcher.measured(16, 0.64)
    assert batcher.worth_sending == 64
    batcher.measured(64, 64 * 20.0)
    assert batcher.worth_sending == 16, "of a large model, 16 windows are minutes"
    batcher = TaskBatcher(BatchBounds(least_windows=64), vote=False)
    batcher.measured(64, 0.5)
    assert batcher.worth_sending == 64, "a device of its own waits for no more than it needs"


@given(
    sizes=st.lists(st.integers(0, 1000), max_size=400),
    alone_up_to=st.integers(1, 50),
    most_bytes=st.integers(1, 5000),
)
def test_split_groups(sizes: list[int], alone_up_to: int, most_bytes: int) -> None:
    files = [AudioFile(f"/calls/{n}.wav", f"{n}.wav", None, size, NOON) for n, size in enumerate(sizes)]
    groups = list(split_groups(files, alone_up_to=alone_up_to, most_bytes=most_bytes))
    assert [file for group in groups for file in group] == files
    if len(files) <= alone_up_to:
        assert all(len(group) == 1 for group in groups)
    assert all(1 <= len(group) <= LARGEST_GROUP for group in groups)
    assert all(len(group) == 1 or sum(file.size_bytes for file in group) <= most_bytes for group in groups)
    if files and most_bytes >= sum(sizes) and len(files) <= LARGEST_GROUP * alone_up_to:
        assert len(groups) <= alone_up_to or len(files) <= alone_up_to
    if len(files) > max(alone_up_to, FEWEST_GROUPS) and most_bytes >= sum(sizes):  # small files: as few as that
        assert len(groups) <= max(FEWEST_GROUPS, len(files) // LARGEST_GROUP + 1)
