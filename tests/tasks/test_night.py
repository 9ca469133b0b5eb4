"""The dispatcher, with a crew in memory: whatever fails and in whatever order answers come, each file ends once."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_engine.errors import (
    CorruptAudio,
    DeadlineExceeded,
    DeviceOutOfMemory,
    MemoryLimitExceeded,
    SourceChanged,
    StorageUnavailable,
    WorkerDied,
)
from stt_engine.types import TranscribeOptions
from tasks.labels import LabelPattern
from tasks.night import TRIES_ALONE
from tests.tasks.played_night import MEMORY, Played, names
from tests.tasks.scripted_crew import Recording

RETRYABLE = (StorageUnavailable("503"), WorkerDied("killed"), DeviceOutOfMemory("full"))
recordings_of_any_kind = st.lists(
    st.builds(
        Recording,
        name=st.just(""),
        n_chunks=st.sampled_from([0, 1, 1, 1, 2, 5, 9, 40]),
        split_errors=st.lists(st.sampled_from([*RETRYABLE, CorruptAudio("bad"), SourceChanged("new")]), max_size=5).map(
            tuple
        ),
        hopeless=st.just(False),
        poison=st.sets(st.integers(0, 60), max_size=2).map(frozenset),
        transcribe_errors=st.lists(st.sampled_from([*RETRYABLE, CorruptAudio("bad")]), max_size=6).map(tuple),
    ),
    max_size=14,
).map(lambda found: [_renamed(recording, name) for recording, name in zip(found, names(len(found)), strict=True)])


def _renamed(recording: Recording, name: str) -> Recording:
    return Recording(
        name,
        recording.n_chunks,
        recording.split_errors,
        recording.hopeless,
        recording.poison,
        recording.transcribe_errors,
    )


@settings(max_examples=150, deadline=None)
@given(
    recordings=recordings_of_any_kind,
    seed=st.integers(0, 1000),
    batch_size=st.integers(1, 5),
    files_alone_up_to=st.sampled_from([3, 500]),
    language=st.sampled_from([None, "en"]),
    gpu_workers=st.integers(1, 3),
)
def test_every_file_ends_exactly_once(
    recordings: list[Recording],
    seed: int,
    batch_size: int,
    files_alone_up_to: int,
    language: str | None,
    gpu_workers: int,
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        spool = Path(folder)
        played = Played(
            recordings,
            spool,
            seed=seed,
            batch_size=batch_size,
            files_alone_up_to=files_alone_up_to,
            transcribe=TranscribeOptions(language=language),
            gpu_workers=gpu_workers,
        )
        outcome = played.run()
        assert list(spool.iterdir()) == [], "samples of finished files are left in the spool"
        assert played.crew.missing == [], "samples were discarded while an order was to read them"

    keys = [recording.name for recording in recordings]
    assert Counter(finished.file.key for finished in played.finished) == Counter(keys)
    left = {failure.file.key for failure in outcome.failures_left}
    deferred = {file.key for file in outcome.deferred}
    rows = set(played.crew.landed)
    assert rows | left | deferred == set(keys)
    assert len(rows) + len(left) + len(deferred) == len(keys)
    assert outcome.not_started == 0
    assert outcome.landed + outcome.failed_terminal == len(rows)

    for recording in recordings:
        row = played.crew.landed.get(recording.name)
        harmful = recording.poison & set(range(recording.n_chunks))
        if row is not None and row.status == "landed":
            assert not harmful
            assert row.transcript is not None
            assert row.transcript.text.split() == [f"w{index}" for index in range(recording.n_chunks)]
            assert len(played.crew.languages.get(recording.file.file_id, {"none"})) == 1, "halves voted apart"
        harmless = not recording.split_errors and not recording.transcribe_errors and not harmful
        if harmless:
            assert row is not None and row.status == "landed", "harmed by another file"

    most = played.crew.most
    assert most["split"] <= 2 * 2
    assert most["transcribe"] <= 2 * gpu_workers + TRIES_ALONE
    largest = max([recording.n_chunks for recording in recordings], default=0)
    in_a_group = max([len(order.files) for order in played.crew.splits], default=0)
    assert played.most_waiting <= 4 * 8 * gpu_workers + (2 * 2 + 1) * largest * in_a_group
    # A long file's voters, at least 16, go as one batch, and so does a whole file that votes.
    assert all(len(order.chunks) <= 16 for order in played.crew.transcribes)


@pytest.mark.parametrize("n_chunks", [1, 7, 40])
def test_halving_finds_the_poisonous_chunk(spool: Path, n_chunks: int) -> None:
    recordings = [Recording(name) for name in names(8)]
    at = n_chunks * 3 // 4
    recordings[3] = Recording("003.wav", n_chunks, poison=frozenset({at}))
    played = Played(recordings, spool)
    outcome = played.run()
    assert (outcome.landed, outcome.failed_terminal, outcome.failures_left) == (7, 1, ())
    row = played.crew.landed["003.wav"]
    assert row.error_type == "PoisonousAudio"
    assert row.error_message is not None
    assert row.error_message.startswith(f"003.wav: the chunk at {at:.1f} s")
    assert row.attempts > 4
    alone = [order for order in played.crew.transcribes if order.alone]
    assert all(len(order.keys) == 1 for order in alone), "what goes with retries goes under one name"
    if n_chunks == 40:
        # With retries: the voters it died with first, then nothing of the search but the chunk itself.
        assert [len(order.chunks) for order in alone if order.keys == ("003.wav",)][1:] in ([1], [])


def test_a_device_that_is_too_slow_condemns_no_file(spool: Path) -> None:
    late = (DeadlineExceeded("killed at its deadline"),) * 60
    recordings = [Recording("slow.wav", n_chunks=5, transcribe_errors=late), *[Recording(name) for name in names(4)]]
    played = Played(recordings, spool, transcribe=TranscribeOptions(language="en"))
    outcome = played.run()
    assert (outcome.landed, outcome.failed_terminal) == (4, 0)
    (left,) = outcome.failures_left
    assert (left.error_type, left.retryable) == ("DeadlineExceeded", True)
    assert "slow.wav: the chunk at" in left.error_message and "transcribe_deadline_s" in left.error_message


def test_halves_of_a_file_do_not_vote_apart(spool: Path) -> None:
    died = (WorkerDied("killed"),) * 5  # once, and four times alone: the file is halved, and then nothing happens
    for seed in range(10):
        played = Played([Recording("a.wav", n_chunks=6, transcribe_errors=died)], spool, seed=seed)
        assert played.run().landed == 1
        assert [len(order.chunks) for order in played.crew.transcribes] == [6, 6, 3, 3]
        assert [len(languages) for languages in played.crew.languages.values()] == [1]


def test_a_decoder_that_crashes_over_a_file_condemns_it_and_one_that_was_killed_does_not(spool: Path) -> None:
    crashed, killed = WorkerDied("killed by SIGSEGV"), WorkerDied("killed by SIGKILL")
    crashed.crashed = True
    recordings = [
        Recording("crash.ape", split_errors=(crashed,), hopeless=True),
        Recording("killed.ape", split_errors=(killed,), hopeless=True),
        Recording("eats.ape", split_errors=(MemoryLimitExceeded("it held 4203 MiB"),), hopeless=True),
        Recording("crash once.ape", split_errors=(crashed,)),
    ]
    played = Played(recordings, spool)
    outcome = played.run()
    assert (outcome.landed, outcome.failed_terminal) == (1, 2)
    row = played.crew.landed["crash.ape"]
    assert (row.error_type, row.attempts) == ("PoisonousAudio", 4)
    assert row.error_message is not None and row.error_message.startswith("crash.ape: the decoder crashed over it")
    row = played.crew.landed["eats.ape"]
    assert (row.error_type, row.attempts) == ("MemoryLimitExceeded", 1)
    assert row.error_message is not None and "cpu_worker_memory_bytes" in row.error_message
    assert [failure.error_type for failure in outcome.failures_left] == ["WorkerDied"]


def test_a_group_has_the_deadline_of_a_file(spool: Path) -> None:
    played = Played([Recording(name) for name in names(10)], spool, files_alone_up_to=3)
    played.run()
    assert max(len(order.files) for order in played.crew.splits) > 1
    assert {order.deadline_s for order in played.crew.splits} == {1800.0}, "each step of a call has it anew"


def test_the_rest_of_a_failed_file_is_not_transcribed(spool: Path) -> None:
    bad = (CorruptAudio("long.wav: bad"),) * 40
    for seed in range(10):
        recordings = [Recording("long.wav", n_chunks=100, transcribe_errors=bad), *[Recording(n) for n in names(6)]]
        played = Played(recordings, spool, seed=seed, transcribe=TranscribeOptions(language="en"))
        outcome = played.run()
        assert (outcome.landed, outcome.failed_terminal) == (6, 1)
        assert played.crew.missing == []
        heard = [s for order in played.crew.transcribes for s in order.chunks if s.spool_uri.endswith(_LONG)]
        assert len(heard) < 60


_LONG = f"{Recording('long.wav').file.file_id}.pcm"


def test_a_file_that_fails_retryably_is_tried_again_under_its_own_name(spool: Path) -> None:
    late = StorageUnavailable("the spool's store is down")
    recordings = [
        # Each fills a task batch of its own.
        Recording("fine.wav", n_chunks=8),
        Recording("slow_to_read.wav", n_chunks=8, split_errors=(late, late)),
        Recording("slow_to_hear.wav", n_chunks=8, transcribe_errors=(late, late)),
        Recording("never.wav", split_errors=(late,), hopeless=True),
    ]
    played = Played(recordings, spool)
    outcome = played.run()
    rows = played.crew.landed
    assert {key: (row.status, row.attempts) for key, row in rows.items()} == {
        "fine.wav": ("landed", 1),
        "slow_to_read.wav": ("landed", 3),
        "slow_to_hear.wav": ("landed", 3),
    }
    (failure,) = outcome.failures_left
    assert (failure.file.key, failure.error_type, failure.retryable, failure.attempts) == (
        "never.wav",
        "StorageUnavailable",
        True,
        4,
    )
    assert ("slow_to_hear.wav",) in [order.keys for order in played.crew.transcribes if order.alone]


def test_a_file_that_changed_is_left_for_the_next_run_without_a_second_look(spool: Path) -> None:
    played = Played([Recording("a.wav"), Recording("b.wav", split_errors=(SourceChanged("b"),))], spool)
    outcome = played.run()
    assert [file.key for file in outcome.deferred] == ["b.wav"]
    assert (outcome.landed, outcome.failures_left) == (1, ())
    assert sum(order.files[0].key == "b.wav" for order in played.crew.splits) == 1


def test_groups_are_taken_apart_when_one_of_them_fails(spool: Path) -> None:
    recordings = [Recording(name) for name in names(20)]
    recordings[7] = Recording("007.wav", split_errors=(StorageUnavailable("x"),))
    recordings[8] = Recording("008.wav", split_errors=(CorruptAudio("008.wav: bad"),))
    played = Played(recordings, spool, files_alone_up_to=4)
    outcome = played.run()
    assert (outcome.landed, outcome.failed_terminal) == (19, 1)
    assert [order.files[0].key for order in played.crew.splits if order.alone] == ["007.wav"]
    assert {len(order.files) for order in played.crew.splits} == {5, 1}


def test_large_files_do_not_share_a_group(spool: Path) -> None:
    recordings = [Recording(name, size_bytes=400) for name in names(20)]
    played = Played(recordings, spool, files_alone_up_to=4, group_bytes=1000)
    assert played.run().landed == 20
    assert {len(order.files) for order in played.crew.splits} == {2}


def test_a_long_file_speaks_one_language_over_many_task_batches(spool: Path) -> None:
    played = Played([Recording("long.wav", n_chunks=100), *[Recording(name) for name in names(3)]], spool, seed=3)
    assert played.run().landed == 4
    long_file = next(r for r in played.recordings if r.name == "long.wav").file
    orders = [order for order in played.crew.transcribes if "long.wav" in order.keys]
    assert len(orders) > 8
    assert [long_file.file_id in order.languages for order in orders] == [False] + [True] * (len(orders) - 1)
    voters = [spooled.chunk.index for spooled in orders[0].chunks if spooled.chunk.file_id == long_file.file_id]
    assert min(voters) < 10 and max(voters) > 90, "the voters are not from all over the file"


def test_rows_carry_labels_and_the_backend_that_was_loaded(spool: Path) -> None:
    bad = Recording("kim/2.wav", split_errors=(CorruptAudio("kim/2.wav: nothing of it decodes"),))
    labels = LabelPattern(r"(?P<agent>[^/]+)/(?P<call_id>\d+)")
    played = Played([Recording("kim/1.wav"), bad], spool, labels=labels)
    outcome = played.run()
    assert (outcome.backend, outcome.compute_type) == ("fake", "float32")
    assert {key: dict(row.labels) for key, row in played.crew.landed.items()} == {
        "kim/1.wav": {"agent": "kim", "call_id": "1"},
        "kim/2.wav": {"agent": "kim", "call_id": "2"},
    }
    row = played.crew.landed["kim/2.wav"]
    assert (row.status, row.error_type, row.attempts) == ("failed", "CorruptAudio", 1)


def test_splitting_goes_on_while_windows_are_transcribed(spool: Path) -> None:
    """With a slow GPU side, what waits fills up to its bound and splitting pauses; it never runs dry."""
    played = Played([Recording(name, n_chunks=8) for name in names(60)], spool)
    assert played.run().landed == 60
    assert 16 < played.most_waiting <= 4 * 8 + 5 * 8
