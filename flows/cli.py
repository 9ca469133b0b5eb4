"""The command line: `nightscribe run`, `transcribe`, `serve`, `client`, `failures`, `export`, `compact`, `models` ...

Results go to stdout, everything else to stderr. Exit status: 0 done; 1 a fault of ours; 2 arguments that cannot be
used; 3 retryable failures are left. Each command imports what it needs when it is called: `--help` answers at once.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from flows.options import RunOptions, run_options
from flows.serve_options import serve_options
from stt_engine.errors import (
    BackendUnavailable,
    NightscribeError,
    NoBackendLoaded,
    UsageError,
)
from stt_engine.server.settings import ServerSettings
from tasks.redaction import redact_last_words, redacted

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="New audio in, Parquet out: batch speech to text with Whisper.",
)
models_app = typer.Typer(no_args_is_help=True, help="Fetch, convert and list models, also for sites without a network.")
app.add_typer(models_app, name="models")

EXIT_USAGE, EXIT_LEFT = 2, 3


def main() -> None:
    """The entry point: our own errors become one line and an exit status, faults of ours keep their trace."""
    redact_last_words()
    try:
        app()
    except (UsageError, NoBackendLoaded, BackendUnavailable) as error:
        fail(str(error), EXIT_USAGE)
    except ValidationError as error:
        fail(_invalid(error), EXIT_USAGE)
    except NightscribeError as error:
        fail(str(error), EXIT_LEFT if error.retryable else EXIT_USAGE)


def fail(message: str, status: int) -> None:
    sys.stderr.write(redacted(f"nightscribe: {message}\n"))
    raise SystemExit(status)


def _invalid(error: ValidationError) -> str:
    """One line for each option that pydantic refused, under the name that the user gave it."""
    told = []
    for problem in error.errors():
        place = [str(part) for part in problem["loc"] if part != "advanced"]
        message = problem["msg"].removeprefix("Value error, ")
        option = f"--{'.'.join(place).replace('_', '-')}"
        told.append(f"{option} {problem['input']!r}: {message}" if place else message)
    return "; ".join(told)


@app.command()
@run_options
def run(options: RunOptions) -> None:
    """Transcribe what is new in SOURCE and land it in DEST as Parquet, one row per file."""
    from flows.run_command import run_once

    raise typer.Exit(run_once(options))


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings.", show_default=False)],
    model: Annotated[str, typer.Option(envvar="NIGHTSCRIBE_MODEL", help="Name or directory.")] = "large-v3-turbo",
    output_format: Annotated[
        str, typer.Option("--format", envvar="NIGHTSCRIBE_FORMAT", help="txt, json, srt, vtt or tsv.")
    ] = "txt",
    output_dir: Annotated[
        Path | None, typer.Option(envvar="NIGHTSCRIBE_OUTPUT_DIR", help="Write a file for each; default: to stdout.")
    ] = None,
    language: Annotated[str, typer.Option(envvar="NIGHTSCRIBE_LANGUAGE", help="Whisper code, or auto.")] = "auto",
    task: Annotated[str, typer.Option(envvar="NIGHTSCRIBE_TASK", help="transcribe or translate.")] = "transcribe",
    backend: Annotated[
        str, typer.Option(envvar="NIGHTSCRIBE_BACKEND", help="auto, faster-whisper, transformers, openai-whisper.")
    ] = "auto",
    device: Annotated[str, typer.Option(envvar="NIGHTSCRIBE_DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
    compute_type: Annotated[str, typer.Option(envvar="NIGHTSCRIBE_COMPUTE_TYPE", help="float16, int8, ...")] = "auto",
    timestamps: Annotated[
        str, typer.Option(envvar="NIGHTSCRIBE_TIMESTAMPS", help="none, segment or word.")
    ] = "segment",
    channels: Annotated[str, typer.Option(envvar="NIGHTSCRIBE_CHANNELS", help="mix or split.")] = "mix",
    initial_prompt: Annotated[
        str | None, typer.Option(envvar="NIGHTSCRIBE_INITIAL_PROMPT", help="Text that goes before.")
    ] = None,
    hotwords: Annotated[str | None, typer.Option(envvar="NIGHTSCRIBE_HOTWORDS", help="Words to expect.")] = None,
) -> None:
    """Transcribe files here and now with the engine alone: no Prefect, no tables."""
    from flows.transcribe_command import TranscribeRequest, transcribe_files

    request = TranscribeRequest(
        files=tuple(files),
        model=model,
        output_format=output_format,
        output_dir=output_dir,
        language=language,
        task=task,
        backend=backend,
        device=device,
        compute_type=compute_type,
        timestamps=timestamps,
        channels=channels,
        initial_prompt=initial_prompt,
        hotwords=hotwords,
    )
    raise typer.Exit(transcribe_files(request))


@app.command()
@serve_options
def serve(settings: ServerSettings) -> None:
    """Keep a model loaded behind HTTP: POST /transcribe, and OpenAI's /v1/audio/transcriptions and /translations."""
    from stt_engine.server.run import serve as serve_until_told

    serve_until_told(settings)


@app.command()
def client(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings.", show_default=False)],
    url: Annotated[str, typer.Option(envvar="STT_URL", help="The server.")] = "http://127.0.0.1:8003",
    api_key: Annotated[str | None, typer.Option(envvar="STT_API_KEY", help="The server's key.")] = None,
    language: Annotated[str | None, typer.Option(help="Whisper code; default: the speech votes.")] = None,
    backend: Annotated[str | None, typer.Option(help="One of those that the server has loaded.")] = None,
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")] = 8,
    attempts: Annotated[int, typer.Option(min=1, max=50, help="At each file, with growing pauses.")] = 6,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds that an answer may take.")] = 300.0,
    lines: Annotated[bool, typer.Option(help="One JSON object a line, no brackets round them.")] = False,
    fresh: Annotated[bool, typer.Option(help="Do not take up what an interrupted run has left.")] = False,
) -> None:
    """Send a folder's recordings to a server; JSON rows on stdout, progress on stderr."""
    from flows.client_command import send_folder
    from stt_engine.client.options import ClientOptions

    raise typer.Exit(
        send_folder(
            folder,
            ClientOptions(
                url=url, api_key=api_key, language=language, backend=backend, parallel=parallel,
                attempts=attempts, timeout_s=timeout_s,
            ),
            lines=lines,
            fresh=fresh,
        )
    )  # fmt: skip


@app.command()
def failures(
    dest: Annotated[str, typer.Argument(envvar="NIGHTSCRIBE_DEST", help="Folder or s3:// URI of the tables.")],
    as_json: Annotated[
        bool, typer.Option("--json", envvar="NIGHTSCRIBE_JSON", help="One JSON object a line on stdout.")
    ] = False,
) -> None:
    """What has no transcript: which file, why, and what to do."""
    from rich.markup import escape

    from flows.console import stderr, stdout
    from tasks.parts import require_tables
    from tasks.run_record import failures as read_failures
    from tasks.storage import open_store

    store = open_store(dest)
    require_tables(store)
    found = read_failures(store)
    if as_json:
        for failure in found:
            line: dict[str, Any] = asdict(failure) | {"what_to_do": failure.what_to_do}
            print(json.dumps(line, ensure_ascii=False, default=str))  # noqa: T201 - the result
        return
    if not found:
        print(f"no failures in {dest}")  # noqa: T201
        return
    for failure in found:
        kind = f"{failure.error_type}{' (will be retried)' if failure.retryable else ''}"
        print(failure.uri)  # noqa: T201
        for name, said in (
            ("error", f"{kind}, {failure.failed_at:%Y-%m-%d %H:%M} UTC"),
            ("what happened", failure.message),
            ("what to do", failure.what_to_do),
        ):
            stdout.print(f"  [bold]{name:<14}[/bold]{escape(said)}", highlight=False, soft_wrap=True)
    stderr.print("each kind has a page: docs/failures/", highlight=False)


@app.command()
def export(
    dest: Annotated[
        str,
        typer.Argument(envvar="NIGHTSCRIBE_DEST", help="Folder or s3:// URI of the tables.", show_default=False),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder for a file for each recording.", show_default=False)],
    output_format: Annotated[
        str, typer.Option("--format", envvar="NIGHTSCRIBE_FORMAT", help="txt, json, srt, vtt or tsv.")
    ] = "txt",
    where: Annotated[
        str | None, typer.Option(help="SQL condition on the columns of transcripts, e.g. \"language = 'ko'\".")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="NIGHTSCRIBE_JSON", help="Print one JSON object last on stdout.")
    ] = False,
) -> None:
    """Transcripts out of the tables: subtitles, text or JSON, a file for the newest row of each recording."""
    from flows.export_command import export_once

    export_once(dest, to, output_format=output_format, where=where, as_json=as_json)


@app.command()
def evaluate(
    dest: Annotated[
        str,
        typer.Argument(envvar="NIGHTSCRIBE_DEST", help="Folder or s3:// URI of the tables.", show_default=False),
    ],
    reference: Annotated[
        Path, typer.Option(help="CSV, TSV, JSONL or Parquet: uri or key, text, language if known.", show_default=False)
    ],
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst files to show.")] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="NIGHTSCRIBE_JSON", help="Print one JSON object last on stdout.")
    ] = False,
) -> None:
    """How right the transcripts are: word and character error rates by language against texts of people."""
    from flows.evaluate_command import evaluate_once

    evaluate_once(dest, reference, worst=worst, as_json=as_json)


@app.command()
def compact(
    dest: Annotated[
        str,
        typer.Argument(envvar="NIGHTSCRIBE_DEST", help="Folder or s3:// URI of the tables.", show_default=False),
    ],
    target_bytes: Annotated[
        int, typer.Option(envvar="NIGHTSCRIBE_TARGET_BYTES", help="Size of the parts that it aims at.")
    ] = 128_000_000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="NIGHTSCRIBE_DRY_RUN", help="Only say what would be done.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="NIGHTSCRIBE_JSON", help="Print one JSON object last on stdout.")
    ] = False,
) -> None:
    """Merge small parts of the tables into large ones; of each recording only the newest row stays."""
    from flows.compact_command import compact_once

    compact_once(dest, target_bytes=target_bytes, dry_run=dry_run, as_json=as_json)


@app.command()
def forget(
    uri: Annotated[str, typer.Argument(help="Exactly as in source_uri.", show_default=False)],
    dest: Annotated[str, typer.Argument(help="Folder or s3:// URI of the tables.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    spool: Annotated[
        str | None, typer.Option(envvar="NIGHTSCRIBE_ADVANCED__SPOOL", help="As given to the runs, if at all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object last on stdout.")] = False,
) -> None:
    """Erase one recording: its rows in every table, and what else in DEST names it. Cannot be undone."""
    from flows.forget_command import forget_once

    forget_once(uri, dest, yes=yes, spool=spool, as_json=as_json)


@app.command()
def doctor(
    source: Annotated[
        str | None, typer.Argument(envvar="NIGHTSCRIBE_SOURCE", help="Look whether it can be read.")
    ] = None,
    dest: Annotated[
        str | None, typer.Argument(envvar="NIGHTSCRIBE_DEST", help="Look whether it can be written.")
    ] = None,
    model: Annotated[str, typer.Option(envvar="NIGHTSCRIBE_MODEL", help="Name or directory.")] = "fixture",
) -> None:
    """Look at everything that a run needs; each line says what to do."""
    from flows.doctor import examine

    raise typer.Exit(examine(source, dest, model))


@app.command()
def demo(
    dest: Annotated[Path, typer.Option(envvar="NIGHTSCRIBE_DEMO_DEST", help="Where the tables go.")] = Path(
        "demo-tables"
    ),
) -> None:
    """Transcribe the bundled recordings through the real flow, with a tiny model made for tests."""
    from flows.demo import run_demo

    raise typer.Exit(run_demo(dest))


@models_app.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="tiny ... large-v3-turbo, or org/repo on the Hub.")],
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Default: the cache.")] = None,
) -> None:
    """Get a model ahead of its use, for a machine without a network."""
    from flows.console import transfer_progress
    from stt_engine import models

    with transfer_progress() as report:
        path = models.fetch(name, directory, report=report)
    print(path)  # noqa: T201


@models_app.command("convert")
def convert_model(directory: Annotated[Path, typer.Argument(metavar="DIR", help="In Hugging Face format.")]) -> None:
    """Put the CTranslate2 form beside a model, for machines that cannot convert."""
    from flows.console import transfer_progress
    from stt_engine import models

    with transfer_progress() as report:
        path = models.convert(directory, report=report)
    print(path)  # noqa: T201


@models_app.command("list")
def list_models() -> None:
    """The models that this machine has."""
    from rich.markup import escape

    from flows.console import results_table, stdout
    from stt_engine import models

    table = results_table("name", "forms", "MB", "origin", "where")
    for model in models.installed():
        forms = ", ".join(sorted(form.value for form in model.forms))
        where = str(model.path) if model.path else "in the package; unpacked when first used"
        table.add_row(escape(model.name), forms, f"{model.size_bytes / 1e6:.0f}", model.origin, escape(where))
    stdout.print(table)
