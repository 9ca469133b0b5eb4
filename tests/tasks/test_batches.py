"""Which files share a part, and what it is called: arithmetic, tested by property."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tasks.batches import BATCH_BYTES, batch_id, batch_size, form_batches
from tasks.types import AudioFile
from tests.tasks.builders import OPTIONS, audio_file

DAY = date(2026, 3, 1)

_members = st.lists(
    st.tuples(st.integers(0, 500), st.sampled_from(["v1", "v2"]), st.integers(0, 3)), unique=True, max_size=60
).map(lambda found: [(audio_file(number, version=version), generation) for number, version, generation in found])


@given(members=_members, data=st.data())
def test_a_batchs_name_depends_on_what_goes_in_alone(members: list[tuple[AudioFile, int]], data: st.DataObject) -> None:
    name = batch_id(members, OPTIONS)
    assert len(name) == 32
    assert int(name, 16) >= 0
    assert batch_id(data.draw(st.permutations(members)), OPTIONS) == name
    assert batch_id(members, "other") != name
    if members:
        file, generation = members[0]
        assert batch_id(members[1:], OPTIONS) != name
        assert batch_id([(file, generation + 7), *members[1:]], OPTIONS) != name
        assert batch_id([(replace(file, etag="v9"), generation), *members[1:]], OPTIONS) != name
        touched = replace(file, size_bytes=file.size_bytes + 1, key="elsewhere")  # with an etag, no part of the version
        assert batch_id([(touched, generation), *members[1:]], OPTIONS) == name


@given(sizes=st.lists(st.integers(0, BATCH_BYTES), max_size=300), per_batch=st.integers(1, 120))
def test_batches_hold_every_file_once_and_in_order(sizes: list[int], per_batch: int) -> None:
    members = [(replace(audio_file(number), size_bytes=size), 0) for number, size in enumerate(sizes)]
    batches = form_batches(members, options_hash=OPTIONS, ingest_date=DAY, files_per_batch=per_batch)
    assert [file for batch in batches for file in batch.files] == [file for file, _ in members]
    limit = batch_size(len(members), per_batch) if members else 1
    for batch in batches:
        assert 1 <= len(batch.files) <= limit
        assert len(batch.files) == 1 or sum(file.size_bytes for file in batch.files) <= BATCH_BYTES
        assert batch.batch_id == batch_id(zip(batch.files, batch.generations, strict=True), OPTIONS)
    for one, two in pairwise(batches):
        full = len(one.files) == limit
        assert full or sum(file.size_bytes for file in (*one.files, two.files[0])) > BATCH_BYTES


@given(n_files=st.integers(1, 100_000), per_batch=st.integers(1, 200))
def test_batch_sizes(n_files: int, per_batch: int) -> None:
    size = batch_size(n_files, per_batch)
    assert 1 <= size <= per_batch
    if n_files >= 8 * per_batch:
        assert size == per_batch
    if n_files > 64 and per_batch >= 8:
        assert -(-n_files // size) >= 8
