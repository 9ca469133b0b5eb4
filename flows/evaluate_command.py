"""`nightscribe evaluate`: error rates by language, and the files that are worst."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape

from flows.console import results_table, row_progress, stderr, stdout
from tasks.error_rates import Edits
from tasks.evaluate import Evaluation, FileScore, evaluate_tables

_EDITS = ("sub", "del", "ins")


def evaluate_once(dest: str, reference: Path, *, worst: int, as_json: bool) -> None:
    """Tables on stdout, or one JSON object; what is in no rate on stderr."""
    with row_progress("reading") as report:
        found = evaluate_tables(dest, reference, worst=worst, report=report)
    if as_json:
        print(json.dumps(_as_json(found), ensure_ascii=False))  # noqa: T201 - the result
    else:
        _show(found)
    for names, what in ((found.failed, "have failed"), (found.missing, "are not in the tables")):
        if names:
            some = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            line = f"{len(names)} of the reference {what} and are in no rate: {some}"
            stderr.print(line, highlight=False, markup=False, soft_wrap=True)


def _show(found: Evaluation) -> None:
    table = results_table(
        "language", "files", "WER", "words", "sub", "del", "ins", "CER", "characters", "sub", "del", "ins"
    )
    for score in found.languages:
        table.add_row(score.language, str(score.files), *_cells(score.words), *_cells(score.characters))
    stdout.print(table)
    if found.worst:
        stdout.print("\nworst files", highlight=False)
    for file in found.worst:
        measure = "CER" if file.leading is file.compared.characters else "WER"
        line = f"{file.uri}: {measure} {file.leading.rate:.1%}, {file.leading.errors} errors"
        stdout.print(line, highlight=False, markup=False, soft_wrap=True)
        for name, text in (("written", file.reference), ("heard", file.heard)):
            stdout.print(f"  [bold]{name:<8}[/bold]{escape(text)}", highlight=False, soft_wrap=True)


def _cells(edits: Edits) -> tuple[str, ...]:
    return f"{edits.rate:.2%}", *map(str, (edits.length, edits.substitutions, edits.deletions, edits.insertions))


def _as_json(found: Evaluation) -> dict[str, Any]:
    return {
        "languages": [
            {"language": score.language, "files": score.files}
            | {"wer": round(score.words.rate, 6), "words": asdict(score.words)}
            | {"cer": round(score.characters.rate, 6), "characters": asdict(score.characters)}
            for score in found.languages
        ],
        "worst": [_file_as_json(file) for file in found.worst],
        "failed": list(found.failed),
        "missing": list(found.missing),
    }


def _file_as_json(file: FileScore) -> dict[str, Any]:
    rates = {"wer": round(file.compared.words.rate, 6), "cer": round(file.compared.characters.rate, 6)}
    texts = {"reference": file.reference, "heard": file.heard}
    return {"uri": file.uri, "language": file.language} | rates | texts
