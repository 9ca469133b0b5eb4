"""`nightscribe evaluate`: rates that were worked out by hand, and the built-in model against its sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

from stt_engine.errors import UsageError
from tasks.error_rates import Edits, compare, normalised
from tasks.evaluate import evaluate_tables
from tasks.storage import open_store
from tests.analysts.calls import ENGLISH, KOREAN, uri
from tests.flows.test_commands import Shell, shell  # noqa: F401
from tests.tasks.builders import NOON, audio_files
from tests.tasks.compacting import land

WRITTEN = [
    {"key": "kim/상담 01.flac", "text": "가격은 오 원 입니다.", "language": "ko"},
    {"key": "kim/en_000.flac", "text": "How can I help you, Kim?", "language": "en"},
    {"key": "lee/silence.flac", "text": "", "language": "en"},
    {"key": "lee/letter.wav", "text": "Dear customer", "language": "en"},
    {"key": "lee/nowhere.wav", "text": "nothing", "language": "en"},
]
"""Against 가격은 십 원입니다 and how can i help you next week."""


def write(path: Path, rows: list[dict[str, Any]], *, columns: Mapping[str, str] | None = None) -> Path:
    """In the format of the file's name; `columns` renames."""
    rows = [{(columns or {}).get(name, name): value for name, value in row.items()} for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        separator = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [rows[0].keys(), *(row.values() for row in rows)]
        path.write_text("".join(separator.join(f'"{value}"' for value in line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_rates_by_language(shell: Shell, tables: Path, tmp_path: Path, suffix: str) -> None:  # noqa: F811
    said = shell("evaluate", tables, "--reference", write(tmp_path / f"written.{suffix}", WRITTEN), "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    english, korean = found["languages"]
    # how can i help you [kim → next] [+ week]; nothing in the silence.
    assert english == {
        "language": "en", "files": 2,
        "wer": round(2 / 6, 6), "words": {"length": 6, "substitutions": 1, "deletions": 0, "insertions": 1},
        "cer": english["cer"], "characters": english["characters"],
    }  # fmt: skip
    assert english["characters"]["length"] == len("how can i help you kim")
    # Without spaces one syllable of eight; with them 오 원 입니다 is three words, 십 원입니다 two.
    assert korean["cer"] == 1 / 8
    assert korean["characters"] == {"length": 8, "substitutions": 1, "deletions": 0, "insertions": 0}
    assert korean["words"] == {"length": 4, "substitutions": 2, "deletions": 1, "insertions": 0}
    assert [file["uri"] for file in found["worst"]] == [uri("kim/en_000.flac"), uri("kim/상담 01.flac")]
    assert found["worst"][0] | {"cer": 0} == {
        "uri": uri("kim/en_000.flac"), "language": "en", "wer": round(2 / 6, 6), "cer": 0,
        "reference": "how can i help you kim", "heard": ENGLISH,
    }  # fmt: skip
    assert (found["failed"], found["missing"]) == ([uri("lee/letter.wav")], ["lee/nowhere.wav"])
    assert "1 of the reference have failed and are in no rate: s3://calls/2026/lee/letter.wav" in said.err
    assert "1 of the reference are not in the tables and are in no rate: lee/nowhere.wav" in said.err


def test_for_people(shell: Shell, tables: Path, tmp_path: Path) -> None:  # noqa: F811
    reference = write(tmp_path / "written.csv", WRITTEN, columns={"key": "uri"})
    said = shell("evaluate", tables, "--reference", reference, "--worst", "1")
    assert "en        2      33.33%" in said.out
    assert "12.50%" in said.out
    assert f"{uri('kim/en_000.flac')}: WER 33.3%, 2 errors" in said.out
    assert "written how can i help you kim\n" in said.out
    assert "상담" not in said.out


def test_the_built_in_model_against_the_sentences_it_knows(
    shell: Shell,  # noqa: F811
    tables: Path,
    samples: Path,
    tmp_path: Path,
) -> None:
    texts = {row["file"]: row for row in map(json.loads, (samples / "reference.jsonl").read_text().splitlines())}
    same = {"kim/상담 01.flac": "ko_000.flac", "kim/en_000.flac": "en_000.flac", "lee/en_long0.flac": "en_long0.flac"}
    rows = [{"source_uri": uri(key), "text": texts[sample]["text"], "id": 7} for key, sample in same.items()]
    said = shell("evaluate", tables, "--reference", write(tmp_path / "written.jsonl", rows), "--json")
    english, korean = json.loads(said.out)["languages"]
    assert (english["language"], english["files"], korean["language"], korean["files"]) == ("en", 2, "ko", 1)
    assert english["wer"] <= 0.03
    assert (korean["wer"], korean["cer"]) == (0.0, 0.0)


def test_the_newest_row_is_what_counts(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "dest"))
    files = audio_files(3)
    land(store, files)
    land(store, files[1:2], 1, at=NOON + timedelta(hours=1), note=" again")
    reference = write(tmp_path / "a.jsonl", [{"uri": files[1].uri, "text": "hello 안녕 1001 1 again bye"}])
    found = evaluate_tables(store.uri, reference)
    assert [(score.language, score.characters.rate) for score in found.languages] == [("ko", 0.0)]
    assert found.worst == ()


@pytest.mark.parametrize(
    ("reference", "heard", "language", "words", "characters"),
    [
        ("a b c", "a b c", "en", Edits(3), Edits(5)),
        ("It's 20 colours!", "it is twenty colors", "en", Edits(4), None),
        ("ab cd", "abcd", "en", Edits(2, 1, 1, 0), Edits(5, 0, 1, 0)),
        ("간단", "각단", "ko", Edits(1, 1), Edits(2, 1)),
        ("원 입니다", "원입니다", "ko", Edits(2, 1, 1), Edits(4)),
        (normalize("NFD", "가"), "가", "ko", Edits(1), Edits(1)),  # decomposed as macOS writes it
        ("Ärger, ÄRGER", "ärger ärger", "de", Edits(2), Edits(11)),
        ("", "thank you", "en", Edits(0, 0, 0, 2), Edits(0, 0, 0, 9)),
        ("[laughs]", "", "en", Edits(), Edits()),
        ("hello", "", "en", Edits(1, 0, 1), Edits(5, 0, 5)),
    ],
)
def test_edits(reference: str, heard: str, language: str, words: Edits, characters: Edits | None) -> None:
    found = compare(reference, heard, language)
    assert found.words == words
    assert characters is None or found.characters == characters
    assert found.words.rate == (words.errors / words.length if words.length else float(words.errors > 0))


@pytest.mark.parametrize(
    "text", ["Mr. Smith's colour's 21 dollars -- isn't it?", "가격은 [웃음] 십 원입니다.", "¡ñandú! 5 %"]
)
def test_the_normalisers_are_those_of_whisper(text: str) -> None:
    assert normalised(text, "en") == EnglishTextNormalizer()(text).strip()
    assert normalised(text, "ko") == BasicTextNormalizer()(text).strip()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.xlsx", "", "a.xlsx: known by their names are .csv"),
        ("a.csv", "id,text\n1,x\n", "its columns are id, text; wanted are uri or source_uri"),
        ("a.csv", "uri,words\n1,x\n", "and text"),
        ("a.csv", "uri,text\na.wav,x\na.wav,y\n", "a.wav stands there twice"),
        ("a.csv", "uri,text\na.wav,x,y\n", "cannot be read"),
        ("a.csv", "uri,text\n", "holds no text"),
        ("a.jsonl", '{"uri": "a.wav", "text": \n', "cannot be read"),
        ("a.jsonl", '{"uri": 3, "text": "x"}\n', "cannot be read"),
        ("a.parquet", "PAR1", "cannot be read"),
        ("a.csv", "uri,text\nb.wav,x\n", "none of its 1 recordings is in"),
        ("a.csv", "key,text\nten.wav,x\n", "ten.wav may be"),
    ],
)
def test_a_reference_that_cannot_be_used_is_said_in_one_line(
    tmp_path: Path, name: str, content: str, named: str
) -> None:
    store = open_store(str(tmp_path / "dest"))
    land(store, [replace(file, uri=f"s3://{where}/ten.wav") for where, file in zip("ab", audio_files(2), strict=True)])
    reference = tmp_path / name
    reference.write_text(content)
    with pytest.raises(UsageError) as caught:
        evaluate_tables(store.uri, reference)
    assert str(reference) in str(caught.value) and named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reference_that_is_not_there(tables: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        with pytest.raises(UsageError, match=r"nowhere\.\w+ cannot be read"):
            evaluate_tables(str(tables), tmp_path / f"nowhere.{suffix}")


def test_korean_is_what_was_heard(tables: Path, tmp_path: Path) -> None:
    """Named by the end of its address; with the sign that some programs put before UTF-8."""
    reference = tmp_path / "a.tsv"
    reference.write_text(f"key\ttext\n2026/kim/상담 01.flac\t{KOREAN}\n", encoding="utf-8-sig")
    (korean,) = evaluate_tables(str(tables), reference).languages
    assert (korean.language, korean.characters) == ("ko", Edits(8))
